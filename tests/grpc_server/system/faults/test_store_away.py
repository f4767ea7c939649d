"""A store on real MinIO that is gone for a long time: no caller notices, and operators do."""

from __future__ import annotations

import http.client
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Self

import orjson
import pytest

from ferryline.deploy.stack.local import LocalStack
from ferryline.grpc_server.client import NO_RETRY, Client
from ferryline.registry import Registry
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer, added
from tests.grpc_server.server_process import Site
from tests.support.sizes import sized
from tests.support.waiting import DEADLINE, wait_for

AWAY = sized(3.0, 12.0)
"""Seconds, at ten looks a second; 12 have as many looks and longer pauses than ten minutes at the default."""
ANSWERS = 100


@pytest.fixture
def site(fault_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    bucket, _, query = fault_stack.addresses().store.partition("?")
    made.store = f"{bucket}/test-{uuid.uuid4().hex}?{query}"
    made.registry = Registry.open(made.store, actor="tester")
    made.publish(model_files.plus(5))
    return made


class Callers:
    """Ask without a pause until they are told to stop, and note every answer by the way it took."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.answers: Counter[tuple[str, float]] = Counter()
        self.faults: list[str] = []
        self._stop = threading.Event()
        self.ways = {"grpc": self._over_grpc, "http": self._over_http, "stream": self._over_a_stream}
        self._threads = [threading.Thread(target=self._call, args=each) for each in self.ways.items()]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(DEADLINE)

    def go_on(self, answer: float) -> None:
        """Return once each of them has got so many more answers."""
        before = self.answers.copy()

        def have_answers() -> bool:
            return bool(self.faults) or all(
                self.answers[way, answer] > before[way, answer] + ANSWERS for way in self.ways
            )

        wait_for(have_answers, f"answers by the version that adds {answer}, over each way")
        assert self.faults == []

    def _call(self, name: str, way: Callable[[], Iterator[float]]) -> None:
        try:
            for answer in way():
                self.answers[name, answer] += 1
                if self._stop.wait(0.005):
                    return
        except Exception as error:  # noqa: BLE001 - whatever a caller sees is what the test is about
            self.faults.append(f"{name}: {error!r}")

    def _over_grpc(self) -> Iterator[float]:
        with Client(self.server.address, timeout=DEADLINE, retry=NO_RETRY) as client:
            while True:
                yield added(client.infer("m", ROW))

    def _over_a_stream(self) -> Iterator[float]:
        with Client(self.server.address) as client, client.stream("m") as stream:
            while True:
                stream.send(ROW)
                yield added(stream.receive())

    def _over_http(self) -> Iterator[float]:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW.ravel().tolist()}
        with closing(http.client.HTTPConnection(self.server.http_address, timeout=DEADLINE)) as connection:
            while True:
                connection.request("POST", "/v2/models/m/infer", orjson.dumps({"inputs": [tensor]}))
                reply = connection.getresponse()
                document = orjson.loads(reply.read())
                assert reply.status == 200, document
                yield document["outputs"][0]["data"][0] - ROW[0, 0]


@contextmanager
def away(stack: LocalStack) -> Iterator[None]:
    stack.kill_part("minio")
    try:
        yield
    finally:
        stack.start_part("minio")


def detail(server: RunningServer, port: str) -> tuple[int, dict[str, object]]:
    """What readiness says of the model, on the metrics port or on HTTP's."""
    on_metrics = (server.metrics_url.split("/")[2], "/health/ready")
    host, path = on_metrics if port == "metrics" else (server.http_address, "/v2/health/ready")
    with closing(http.client.HTTPConnection(host, timeout=DEADLINE)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, orjson.loads(reply.read())["models"]["m"]


def test_no_caller_notices_and_readiness_says_it(site: Site, fault_stack: LocalStack) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        with Callers(server) as callers:
            callers.go_on(5)
            with away(fault_stack):
                wait_for(lambda: server.metric("ferry_follower_failing_seconds") > AWAY, "the outage")
                callers.go_on(5)
                assert server.health() == server.health("m") == "SERVING"
                for port in ("metrics", "http"):
                    status, said = detail(server, port)
                    assert (status, said["ready"], said["version"]) == (200, True, 1)
                    assert isinstance(said["failing_seconds"], float)
                    assert isinstance(said["channel_read_seconds_ago"], float)
                    assert min(said["failing_seconds"], said["channel_read_seconds_ago"]) > AWAY / 2
                    assert "127.0.0.1" in str(said["last_error"])
                assert server.client.model("m").versions == ("1",)
            assert {answer for _, answer in callers.answers} == {5.0}
            # what is promoted then is found, at the latest after the longest pause between two tries
            site.publish(model_files.plus(6))
            callers.go_on(6)
            wait_for(lambda: detail(server, "metrics")[1]["failing_seconds"] == 0, "the return")
            assert detail(server, "metrics")[1]["last_error"] is None
        assert callers.faults == []
        assert "Traceback" not in server.log()
