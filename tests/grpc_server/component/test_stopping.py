"""A stop in order: who is answered, who is sent away, and what does not hold it up."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Self

import grpc
import numpy as np
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ferryline.grpc_server import process
from ferryline.grpc_server.endpoint import SERVICE
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.held_runs import holding_runs
from tests.grpc_server.running_server import ROW, RunningServer
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.waiting import DEADLINE, wait_for

INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
MIB = 2**20
FOR_A_DAY = ["--drain-seconds", "86400"]
"""A stop that waits for what it should not wait for does not end before its test fails."""

IDLE_CALLER = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=300)
print("asked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    return made


def place(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def drain(server: RunningServer) -> None:
    """Ask the server to stop, and return when it has begun to."""
    server.ask_to_stop()
    wait_for(lambda: bool(server.events("draining")), "the drain")


@contextmanager
def lingering() -> Iterator[None]:
    """While the block lasts, callers have not turned away yet."""
    turned_away = threading.Event()

    async def until_quiet(*_: object) -> None:
        await asyncio.to_thread(turned_away.wait, DEADLINE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "until_quiet", until_quiet)
        try:
            yield
        finally:
            turned_away.set()


@contextmanager
def idle_caller(server: RunningServer) -> Iterator[None]:
    """A blocking client that has asked once and does not look at its connection any more."""
    command = [sys.executable, "-c", IDLE_CALLER, server.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as caller:
        try:
            assert caller.stdout is not None
            assert caller.stdout.readline() == b"asked\n"
            yield
        finally:
            caller.kill()


def test_idle_and_half_open_connections_do_not_hold_up_a_stop(site: Site) -> None:
    with site.server(flags=FOR_A_DAY) as server, ExitStack() as stack:
        server.wait_until_healthy()
        stack.enter_context(idle_caller(server))
        for greeting in (b"", PREFACE[:7], *[PREFACE] * 100):
            half_open = stack.enter_context(closing(socket.create_connection(place(server.address))))
            half_open.sendall(greeting)
        web = stack.enter_context(closing(socket.create_connection(place(server.http_address))))
        web.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n")
        assert server.plus() == 5
        server.ask_to_stop()
        assert server.wait() == 0, "it ends while all of them are open"
        assert server.events("drained")


def test_a_stop_says_not_serving_first_and_does_not_wait_for_watchers(site: Site) -> None:
    with site.server(flags=FOR_A_DAY) as server:
        server.wait_until_healthy()
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with lingering():
            server.ask_to_stop()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert server.plus() == 5, "requests are still answered while callers turn away"
        assert server.wait() == 0


def test_requests_under_way_are_answered_over_grpc_and_http_and_health_says_so_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_SERVER_RUN_THREADS", "1")
    site.publish(model_files.held(1), "slow")
    with holding_runs() as held, site.server("m", "slow", flags=FOR_A_DAY) as server:
        server.wait_until_healthy()
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        call = server.channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
        slow = call.future(raw_request("slow", x=ROW).SerializeToString(), timeout=DEADLINE)
        wait_for(lambda: held.begun == 1, "its run")
        replies: list[tuple[int, Any]] = []
        asking = threading.Thread(target=lambda: replies.append(infer_over_http(server, "slow")))
        asking.start()
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"}'
        wait_for(lambda: server.metrics().get(waiting) == 1, "the other to wait")
        server.ask_to_stop()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not slow.done(), "health says it before the answers are out"
        assert not replies
        held.let_go()
        assert float_output(slow.result(DEADLINE))[0, 0] == 2
        asking.join(DEADLINE)
        status, document = replies[0]
        assert (status, document["outputs"][0]["data"]) == (200, [2, 3, 4, 5])
        assert server.wait() == 0


def infer_over_http(server: RunningServer, model: str) -> tuple[int, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    with closing(http.client.HTTPConnection(server.http_address, timeout=DEADLINE)) as connection:
        connection.request("POST", f"/v2/models/{model}/infer", orjson.dumps({"inputs": [tensor]}))
        reply = connection.getresponse()
        return reply.status, orjson.loads(reply.read())


def test_callers_over_http_are_sent_away_while_they_are_still_answered(site: Site) -> None:
    with site.server() as server, ExitStack() as stack:
        server.wait_until_healthy()
        connection = stack.enter_context(
            closing(http.client.HTTPConnection(server.http_address, timeout=DEADLINE))
        )
        connection.request("GET", "/v2/health/ready")
        reply = connection.getresponse()
        assert (reply.status, reply.headers.get("Connection")) == (200, None)
        reply.read()
        with lingering():
            drain(server)
            connection.request("GET", "/v2/health/ready")
            reply = connection.getresponse()
            assert (reply.status, reply.headers["Connection"]) == (400, "close")
            assert orjson.loads(reply.read())["ready"] is False
        assert server.wait() == 0


def test_callers_over_http_who_do_not_turn_away_are_answered_for_a_while(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LINGER", 0.0)
    monkeypatch.setattr(process, "QUIET_SECONDS", 2.0)  # longer than any pause between two requests
    monkeypatch.setattr(process, "LONGEST_LINGER", DEADLINE)
    with site.server(flags=FOR_A_DAY) as server:
        server.wait_until_healthy()
        assert infer_over_http(server, "m")[0] == 200
        drain(server)
        for _ in range(50):
            assert infer_over_http(server, "m")[0] == 200
        assert not server.has_ended()
        assert not server.events("drained")
        assert server.wait() == 0, "once they have turned away it ends"


def test_an_open_stream_gets_its_answers_and_an_end(site: Site) -> None:
    with site.server(flags=FOR_A_DAY) as server:
        server.wait_until_healthy()
        more = threading.Event()

        def requests() -> Iterator[bytes]:
            for _ in range(50):
                yield raw_request("m", x=ROW).SerializeToString()
            more.wait(DEADLINE)  # the caller keeps its side open

        call = server.channel.stream_stream(
            STREAM, response_deserializer=pb.ModelStreamInferResponse.FromString
        )(requests(), timeout=DEADLINE)
        answers = [next(call) for _ in range(50)]
        assert all(float_output(answer.infer_response)[0, 0] == 6 for answer in answers)
        server.ask_to_stop()
        assert server.wait() == 0, "it ends while the stream is open"
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        more.set()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "the server is stopping" in caught.value.details()


def test_a_slow_reader_gets_its_long_answer_through_a_stop(site: Site) -> None:
    """The handler has returned long ago; what holds the answer back is the reader."""
    site.publish(model_files.identity("float32", ["n"]), "echo")
    with site.server("echo", flags=FOR_A_DAY) as server:
        server.wait_until_healthy()
        rows = np.arange(10 * MIB // 4, dtype=np.float32)
        request = raw_request("echo", x=rows).SerializeToString()
        with _Sluice(place(server.address)) as sluice:
            options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
            with grpc.insecure_channel(sluice.address, options) as channel:
                call = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
                answer = call.future(request, timeout=DEADLINE)
                success = 'nv_inference_request_success{model="echo",version="1"}'
                wait_for(lambda: server.metrics()[success] == 1, "the run")
                drain(server)
                wait_for(lambda: not _connects(place(server.address)), "the end of what is taken")
                assert not answer.done()
                sluice.is_open.set()
                np.testing.assert_array_equal(float_output(answer.result(DEADLINE)), rows)
        assert server.wait() == 0


def _connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=DEADLINE).close()
    except ConnectionRefusedError:
        return False
    return True


class _Sluice:
    """Passes bytes on; to the caller no more than so many until it is opened."""

    FIRST = MIB

    def __init__(self, target: tuple[str, int]) -> None:
        self.is_open = threading.Event()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open.set()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        caller, _ = self._listener.accept()
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        server.connect(self._target)
        self._sockets += [caller, server]  # closed in the order they were opened
        threading.Thread(target=self._pass, args=(caller, server, None), daemon=True).start()
        self._pass(server, caller, self.FIRST)

    def _pass(self, source: socket.socket, sink: socket.socket, most: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(16384):
                sink.sendall(data)
                passed += len(data)
                if most is not None and passed > most:
                    self.is_open.wait()
        except OSError:
            return
