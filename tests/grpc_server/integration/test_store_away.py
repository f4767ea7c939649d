"""A store on real MinIO that is gone for a long time: no caller notices, and operators do."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Self

import orjson
import pytest

from deploy.stack.local import LocalStack
from grpc_server.client import NO_RETRY, Client
from registry import Registry
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ROW, ServerProcess, Site, added
from tests.grpc_server.shop import wait_for
from tests.stack_ports import private_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

AWAY = 12.0
"""Seconds, at ten looks a second: as many looks and longer pauses than ten minutes have at the default."""
LONGEST_ANSWER = 2.0


@pytest.fixture
def own_stack(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalStack]:
    """A MinIO that no other test misses."""
    made = LocalStack(home=tmp_path_factory.mktemp("own-stack"))
    addresses = made.up(["minio"], ports=private_ports())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", addresses.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", addresses.secret_key)
    yield made
    made.down(wipe=True)


@pytest.fixture
def site(own_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.store = own_stack.addresses().store
    made.registry = Registry.open(made.store, actor="tester")
    made.publish(model_files.plus(5))
    return made


class Callers:
    """Ask without a pause until they are told to stop, and note every answer."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.answers: Counter[float] = Counter()
        self.faults: list[str] = []
        self.slowest = 0.0
        self._stop = threading.Event()
        ways = (self._over_grpc, self._over_http, self._over_a_stream)
        self._threads = [threading.Thread(target=self._call, args=(way,)) for way in ways]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(20)

    def _call(self, way: Callable[[], Iterator[float]]) -> None:
        try:
            began = time.monotonic()
            for answer in way():
                self.answers[answer] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                if self._stop.wait(0.005):
                    return
                began = time.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever a caller sees is what the test is about
            self.faults.append(f"{way.__name__}: {error!r}")

    def _over_grpc(self) -> Iterator[float]:
        with Client(self.server.address, retry=NO_RETRY) as client:
            while True:
                yield added(client.infer("m", ROW))

    def _over_a_stream(self) -> Iterator[float]:
        with Client(self.server.address) as client, client.stream("m") as stream:
            while True:
                stream.send(ROW)
                yield added(stream.receive())

    def _over_http(self) -> Iterator[float]:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW.ravel().tolist()}
        with closing(http.client.HTTPConnection(self.server.http_address, timeout=10)) as connection:
            while True:
                connection.request("POST", "/v2/models/m/infer", orjson.dumps({"inputs": [tensor]}))
                reply = connection.getresponse()
                document = orjson.loads(reply.read())
                assert reply.status == 200, document
                yield document["outputs"][0]["data"][0] - ROW[0, 0]


@contextmanager
def away(stack: LocalStack) -> Iterator[None]:
    stack.kill_part("minio")
    yield
    stack.start_part("minio")


def detail(server: ServerProcess, port: str) -> tuple[int, dict[str, object]]:
    """What readiness says of the model, on the metrics port or on HTTP's."""
    host, path = (
        (server.metrics_url.split("/")[2], "/health/ready")
        if port == "metrics"
        else (
            server.http_address,
            "/v2/health/ready",
        )
    )
    with closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, orjson.loads(reply.read())["models"]["m"]


def test_no_caller_notices_and_readiness_says_it(site: Site, own_stack: LocalStack) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        with Callers(server) as callers:
            wait_for(lambda: sum(callers.answers.values()) > 100, "answers")
            with away(own_stack):
                wait_for(
                    lambda: server.metric("ferry_follower_failing_seconds") > AWAY, "the outage", AWAY + 30
                )
                assert server.health() == server.health("m") == "SERVING"
                for port in ("metrics", "http"):
                    status, said = detail(server, port)
                    assert (status, said["ready"], said["version"]) == (200, True, 1)
                    assert isinstance(said["failing_seconds"], float)
                    assert isinstance(said["channel_read_seconds_ago"], float)
                    assert min(said["failing_seconds"], said["channel_read_seconds_ago"]) > AWAY / 2
                    assert "127.0.0.1" in str(said["last_error"])
                assert server.client.model("m").versions == ("1",)
            assert set(callers.answers) == {5.0}
            # what is promoted then is found, at the latest after the longest pause between two tries
            site.publish(model_files.plus(6))
            wait_for(lambda: callers.answers[6.0] > 100, "the new version", 60)
            assert detail(server, "metrics")[1]["failing_seconds"] == 0
            assert detail(server, "metrics")[1]["last_error"] is None
        assert callers.faults == []
        assert callers.slowest < LONGEST_ANSWER
        assert "Traceback" not in server.log()
