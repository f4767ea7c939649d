"""What tests ask of a running `ferry-server`, be it a process of its own or within the test's."""

from __future__ import annotations

import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import numpy as np
import orjson
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ferryline.grpc_server.client import NO_RETRY, Answer, Client
from tests.support.waiting import DEADLINE, wait_for

ROW = np.array([[1, 2, 3, 4]], dtype=np.float32)
AT_ONCE = 50
"""Requests that are answered while something else is looked at."""

_T = TypeVar("_T")


class RunningServer(ABC):
    """A server that listens.

    Attributes:
        address: of gRPC.
        http_address: of HTTP.
        metrics_url: of the metrics.
        pid: of the process that it runs in.
        client: our own, which sends what it is told to, once.
        channel: gRPC's own.
    """

    def __init__(self, pid: int) -> None:
        wait_for(lambda: bool(self.events("listening")) or self.has_ended(), "the server to listen")
        assert not self.has_ended(), self.log()
        found = self.events("listening")[0]
        self.pid = pid
        self.address = f"127.0.0.1:{found['port']}"
        self.metrics_url = f"http://127.0.0.1:{found['metrics_port']}/metrics"
        self.http_address = f"127.0.0.1:{found['http_port']}"
        self.client = plain_client(self.address)
        self.channel = grpc.insecure_channel(self.address)

    @abstractmethod
    def log(self) -> str:
        """All that it has said."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether it runs no more."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Let it end in order; returns at once."""

    @abstractmethod
    def wait(self) -> int:
        """Returns its exit status once it has ended."""

    def close(self) -> None:
        """Stop it if it runs, and wait for its end."""
        self.client.close()
        self.channel.close()
        if not self.has_ended():
            self.ask_to_stop()
        self.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Returns the events of a name in the log."""
        lines = self.log().splitlines(keepends=True)
        # the last line may be half written
        parsed = [orjson.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [event for event in parsed if event["event"] == name]

    def plus(self, model: str = "m", version: str = "") -> float:
        """What the model adds to its input: the mark of a file made by `model_files.plus`."""
        return added(self.client.infer(model, {"x": ROW}, version=version))

    def health(self, name: str = "") -> str:
        """What gRPC's health service says of a model, or of the whole server."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    def wait_until_healthy(self) -> None:
        """Return once every model is served that must be."""
        wait_for(lambda: self.health() == "SERVING", "readiness")

    def metrics(self) -> dict[str, float]:
        """Every figure by its name with its labels."""
        with urllib.request.urlopen(self.metrics_url, timeout=DEADLINE) as reply:  # noqa: S310 - on this machine
            lines = reply.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def metric(self, name: str, model: str = "m") -> float:
        """A figure of a model's production channel."""
        return self.metrics()[f'{name}{{channel="production",model="{model}"}}']

    def wait_until_still(self, read: Callable[[], _T], model: str) -> _T:
        """Returns what `read` gives once that stays the same while others are answered by `model`."""

        def reads() -> tuple[_T, _T]:
            before = read()
            for _ in range(AT_ONCE):
                self.plus(model)
            return before, read()

        def is_still() -> tuple[_T] | None:
            before, after = reads()
            return (after,) if before == after else None

        return wait_for(is_still, "nothing to change any more")[0]


def plain_client(address: str, timeout: float = DEADLINE) -> Client:
    """A client that hides nothing: what is asked is what is sent, and sent once."""
    return Client(address, timeout=timeout, retry=NO_RETRY, check_inputs=False)


def added(answer: Answer) -> float:
    """What was added to each element of `ROW`."""
    difference = answer["y"] - ROW
    assert np.ptp(difference) == 0, f"no single version gives {answer.outputs}"
    return float(difference[0, 0])


def code_of(ask: Callable[[], object]) -> grpc.StatusCode:
    """The code that a call of gRPC ends with."""
    try:
        ask()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
