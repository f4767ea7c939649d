"""The real server as whoever runs it sees it: stops, readiness, figures, and callers that do not behave."""

from __future__ import annotations

import gzip
import http.client
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self

import grpc
import numpy as np
import orjson
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from grpc_server.endpoint import SERVICE
from protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.server_process import START_SECONDS, ServerProcess, Site
from tests.grpc_server.shop import float_output, raw_request, wait_for, wait_until_still

pytestmark = pytest.mark.integration

ROW = np.array([[1, 2, 3, 4]], np.float32)
INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
MIB = 2**20

IDLE_CALLER = """
import sys, time, grpc
channel = grpc.insecure_channel(sys.argv[1])
channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)
print("asked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    return made


def address_of(server: ServerProcess) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host, int(port)


def stop_seconds(server: ServerProcess, number: int = signal.SIGTERM) -> float:
    began = time.monotonic()
    server.process.send_signal(number)
    server.process.wait(30)
    return time.monotonic() - began


@contextmanager
def idle_caller(server: ServerProcess) -> Iterator[None]:
    """A blocking client that has asked once and does not look at its connection any more."""
    command = [sys.executable, "-c", IDLE_CALLER, server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"asked\n"
            yield
        finally:
            process.kill()


# --- the stop ------------------------------------------------------------------------------------


def test_idle_and_half_open_connections_do_not_hold_up_a_stop(site: Site) -> None:
    with site.server(flags=["--drain-seconds", "20"]) as server, ExitStack() as stack:
        server.wait_until_healthy()
        stack.enter_context(idle_caller(server))
        for greeting in (b"", PREFACE[:7], PREFACE):
            half_open = stack.enter_context(closing(socket.create_connection(address_of(server))))
            half_open.sendall(greeting)
        host, _, port = server.http_address.rpartition(":")
        web = stack.enter_context(closing(socket.create_connection((host, int(port)))))
        web.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n")
        assert server.plus() == 5
        assert stop_seconds(server) < 4
        assert server.process.returncode == 0
        assert server.events("drained")


def test_requests_under_way_are_answered_over_grpc_and_http_and_health_says_so_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_SERVER_RUN_THREADS", "1")
    site.publish(model_files.slow(turns=200, size=700), "slow")
    with site.server("m", "slow", flags=["--drain-seconds", "20"]) as server:
        server.wait_until_healthy()
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        call = server.channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
        slow = call.future(raw_request("slow", x=ROW).SerializeToString(), timeout=30)
        replies: list[tuple[int, Any]] = []
        asking = threading.Thread(target=lambda: replies.append(_infer_over_http(server, "slow")))
        asking.start()
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"}'
        wait_for(lambda: server.metrics().get(waiting) == 1, "one to run and the other to wait")
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not slow.done(), "health said it before the answers were out"
        assert float_output(slow.result())[0, 0] == 2
        asking.join(30)
        status, document = replies[0]
        assert (status, document["outputs"][0]["data"]) == (200, [2, 3, 4, 5])
        assert server.process.wait(10) == 0


def _infer_over_http(server: ServerProcess, model: str) -> tuple[int, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    with closing(http.client.HTTPConnection(server.http_address, timeout=30)) as connection:
        connection.request("POST", f"/v2/models/{model}/infer", orjson.dumps({"inputs": [tensor]}))
        reply = connection.getresponse()
        return reply.status, orjson.loads(reply.read())


def test_callers_over_http_are_sent_away_while_they_are_still_answered(site: Site) -> None:
    with site.server() as server, ExitStack() as stack:
        server.wait_until_healthy()
        connection = stack.enter_context(closing(http.client.HTTPConnection(server.http_address, timeout=5)))
        connection.request("GET", "/v2/health/ready")
        reply = connection.getresponse()
        assert (reply.status, reply.headers.get("Connection")) == (200, None)
        reply.read()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: bool(server.events("draining")), "the drain")
        connection.request("GET", "/v2/health/ready")
        reply = connection.getresponse()
        assert (reply.status, reply.headers["Connection"]) == (400, "close")
        assert orjson.loads(reply.read())["ready"] is False
        assert server.process.wait(10) == 0


def test_callers_over_http_who_do_not_turn_away_are_answered_for_a_while(site: Site) -> None:
    with site.server(flags=["--drain-seconds", "20"]) as server:
        server.wait_until_healthy()
        assert _infer_over_http(server, "m")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: bool(server.events("draining")), "the drain")
        until = time.monotonic() + 2.5  # seconds, of the five that a server waits
        while time.monotonic() < until:
            assert _infer_over_http(server, "m")[0] == 200
        assert server.process.poll() is None
        began = time.monotonic()
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 2, "once they have turned away it ends"


def test_an_open_stream_gets_its_answers_and_an_end(site: Site) -> None:
    with site.server(flags=["--drain-seconds", "20"]) as server:
        server.wait_until_healthy()
        more = threading.Event()

        def requests() -> Iterator[bytes]:
            for _ in range(50):
                yield raw_request("m", x=ROW).SerializeToString()
            more.wait(30)  # the caller keeps its side open

        call = server.channel.stream_stream(
            STREAM, response_deserializer=pb.ModelStreamInferResponse.FromString
        )(requests(), timeout=30)
        answers = [next(call) for _ in range(50)]
        assert all(float_output(answer.infer_response)[0, 0] == 6 for answer in answers)
        assert stop_seconds(server) < 4
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        more.set()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "the server is stopping" in caught.value.details()


def test_a_slow_reader_gets_its_long_answer_through_a_stop(site: Site) -> None:
    """The handler has returned long ago; what holds the answer back is the reader."""
    site.publish(model_files.identity("float32", ["n"]), "echo")
    with site.server("echo", flags=["--drain-seconds", "20"]) as server:
        server.wait_until_healthy()
        rows = np.arange(10 * MIB // 4, dtype=np.float32)
        request = raw_request("echo", x=rows).SerializeToString()
        with _Throttle(address_of(server)) as throttle:
            options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
            with grpc.insecure_channel(throttle.address, options) as channel:
                call = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
                answer = call.future(request, timeout=60)
                wait_for(
                    lambda: server.metrics()['nv_inference_request_success{model="echo",version="1"}'] == 1,
                    "the run",
                )
                server.process.send_signal(signal.SIGTERM)
                wait_for(lambda: bool(server.events("draining")), "the drain")
                wait_for(lambda: not _connects(address_of(server)), "the end of what is taken")
                assert not answer.done()
                throttle.slow.clear()
                np.testing.assert_array_equal(float_output(answer.result(30)), rows)
        assert server.process.wait(20) == 0


def _connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


class _Throttle:
    """Passes bytes on, to the caller slowly while `slow` is set."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.slow = threading.Event()
        self.slow.set()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        caller, _ = self._listener.accept()
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        server.connect(self._target)
        self._sockets += [caller, server]  # closed in the order they were opened
        threading.Thread(target=self._pass, args=(caller, server, False), daemon=True).start()
        self._pass(server, caller, True)

    def _pass(self, source: socket.socket, sink: socket.socket, throttled: bool) -> None:
        try:
            while data := source.recv(16384):
                sink.sendall(data)
                if throttled and self.slow.is_set():
                    time.sleep(0.05)
        except OSError:
            return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(site: Site, number: signal.Signals) -> None:
    site.publish(model_files.slow(turns=200, size=700), "slow")
    with site.server("m", "slow", flags=["--drain-seconds", "60"]) as server:
        server.wait_until_healthy()
        call = server.channel.unary_unary(INFER)
        slow = [call.future(raw_request("slow", x=ROW).SerializeToString(), timeout=60) for _ in range(20)]
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"}'
        wait_for(lambda: server.metrics().get(waiting, 0) > 0, "requests to wait")
        server.process.send_signal(number)
        wait_for(lambda: bool(server.events("draining")), "the drain")
        assert server.health() == "NOT_SERVING"
        assert server.process.poll() is None, "the first signal lets it drain"
        assert stop_seconds(server, number) < 2
        assert server.process.returncode == {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 130}[number]
        assert "Traceback" not in server.log()
        for each in slow:
            each.cancel()


# --- callers that do not behave -----------------------------------------------------------------


def test_a_thousand_idle_connections_cost_little(site: Site) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with site.server() as server, ExitStack() as stack:
            server.wait_until_healthy()
            process = psutil.Process(server.process.pid)
            before = process.memory_info().rss
            for _ in range(1000):
                idle = stack.enter_context(closing(socket.create_connection(address_of(server))))
                idle.sendall(PREFACE)
            wait_for(lambda: process.num_fds() > 1000, "all of them to be accepted")
            assert _seconds_of(server, 200) < 5
            wait_until_still(lambda: process.memory_info().rss)
            grown = process.memory_info().rss - before
            assert grown < 48 * MIB, grown / MIB
            used = _cpu_seconds(process)
            time.sleep(2)  # what is measured: two seconds in which nobody asks for anything
            assert _cpu_seconds(process) - used < 0.6
            assert stop_seconds(server) < 6
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_that_never_say_what_they_want_cost_little_and_are_let_go(site: Site) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        host, _, port = server.http_address.rpartition(":")
        web = (host, int(port))
        greetings = [
            (address_of(server), b""),
            (address_of(server), PREFACE[:7]),
            (address_of(server), b"\x16\x03\x01\x02\x00\x01"),
            (web, b""),
            (web, b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"),
            (web, b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{"),
        ]
        process = psutil.Process(server.process.pid)
        assert _seconds_of(server, 20) < 5
        memory, files = process.memory_info().rss, process.num_fds()
        with ExitStack() as stack:
            for address, greeting in greetings * 50:
                half_open = stack.enter_context(closing(socket.create_connection(address)))
                half_open.sendall(greeting)
            wait_for(lambda: process.num_fds() >= files + 150, "them to be accepted")
            assert _seconds_of(server, 100) < 5
            assert _infer_over_http(server, "m")[0] == 200
            assert process.memory_info().rss - memory < 32 * MIB
        wait_for(lambda: process.num_fds() <= files + 2, "their end")
        assert server.plus() == 5
        assert "Traceback" not in server.log()


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _seconds_of(server: ServerProcess, requests: int) -> float:
    began = time.monotonic()
    for _ in range(requests):
        assert server.plus() == 5
    return time.monotonic() - began


def test_a_stream_whose_answers_nobody_reads_costs_a_bounded_memory(site: Site) -> None:
    site.publish(model_files.identity("float32", ["n"]), "echo")
    with site.server("m", "echo") as server:
        server.wait_until_healthy()
        process = psutil.Process(server.process.pid)
        request = raw_request("echo", x=np.zeros(MIB // 4, np.float32)).SerializeToString()
        taken = 0

        def requests() -> Iterator[bytes]:
            nonlocal taken
            for _ in range(400):
                taken += 1
                yield request

        _seconds_of(server, 20)
        before = process.memory_info().rss
        call = server.channel.stream_stream(STREAM)(requests(), timeout=60)
        wait_until_still(lambda: taken, seconds=1)
        assert taken < 200, "the server reads no further than it can answer"
        assert process.memory_info().rss - before < 200 * MIB
        assert server.plus() == 5
        call.cancel()
        wait_for(lambda: server.plus() == 5)


# --- what is told --------------------------------------------------------------------------------


def health_page(server: ServerProcess, path: str = "/health/ready") -> tuple[int, dict[str, object]]:
    host = server.metrics_url.split("/")[2]
    with closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, orjson.loads(reply.read())


def test_a_model_that_is_optional_does_not_keep_the_server_from_being_ready(site: Site) -> None:
    with site.server("m", "later", "extra", flags=["--optional", "extra"]) as server:
        wait_for(lambda: server.health("m") == "SERVING", "the first model", START_SECONDS)
        assert server.health() == "NOT_SERVING"
        status, found = health_page(server)
        assert (status, found["ready"]) == (503, False)
        site.publish(model_files.plus(1), "later")
        server.wait_until_healthy()
        assert server.health("extra") == "NOT_SERVING"
        status, found = health_page(server)
        assert status == 200
        models = found["models"]
        assert isinstance(models, dict)
        assert {name: (each["required"], each["ready"]) for name, each in models.items()} == {
            "m": (True, True),
            "later": (True, True),
            "extra": (False, False),
        }
        assert health_page(server, "/health/live") == (200, {"live": True})


def test_a_store_that_is_away_shows_and_changes_nothing_for_callers(site: Site) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        assert server.metric("ferry_generations_behind") == 0
        assert server.metric("ferry_seconds_behind") == 0
        assert server.metric("ferry_channel_read_age_seconds") < 5
        away = site.root.with_name("away")
        site.root.rename(away)
        site.root.write_text("no folder any more")
        wait_for(lambda: server.metric("ferry_follower_failing_seconds") > 1, "the failure", 20)
        wait_for(lambda: server.metric("ferry_channel_read_age_seconds") > 1.5, "the age", 20)
        status, found = health_page(server)
        models = found["models"]
        assert isinstance(models, dict)
        assert (status, models["m"]["ready"]) == (200, True), "what serves goes on"
        assert models["m"]["failing_seconds"] > 1
        assert models["m"]["last_error"]
        assert server.plus() == 5
        site.root.unlink()
        away.rename(site.root)
        wait_for(lambda: server.metric("ferry_follower_failing_seconds") == 0, "the return", 60)
        assert server.metric("ferry_channel_read_age_seconds") < 5


def test_a_refused_generation_shows_as_one_behind(site: Site) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        promised = model_files.plus(2)
        site.publish(model_files.plus(2, features=5), facts_of=promised)
        refusals = 'ferry_refusals_total{channel="production",gate="contract",model="m"}'
        wait_for(lambda: server.metrics().get(refusals) == 1, "the refusal", 20)
        assert server.metric("ferry_generations_behind") == 1
        behind = server.metric("ferry_seconds_behind")
        assert 0 < behind < 60
        site.publish(model_files.plus(3))
        wait_for(lambda: server.metric("ferry_generations_behind") == 0, "the next one", 20)
        assert server.metric("ferry_seconds_behind") == 0


class _TraceCollector(BaseHTTPRequestHandler):
    """Takes spans as OTLP over HTTP."""

    spans: ClassVar[list[Span]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        self.spans += [
            span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans
        ]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_spans_reach_a_collector_as_children_of_their_callers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _TraceCollector) as collector:
        serving = threading.Thread(target=collector.serve_forever)
        serving.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        with site.server(flags=["--traces"]) as server:
            server.wait_until_healthy()
            parent = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
            request = raw_request("m", x=ROW).SerializeToString()
            server.channel.unary_unary(INFER)(request, timeout=5, metadata=parent)
            assert _infer_over_http(server, "m")[0] == 200
        # the stop has exported what was left
        collector.shutdown()
        serving.join()
    spans = {
        attribute.value.string_value: span
        for span in _TraceCollector.spans
        for attribute in span.attributes
        if attribute.key == "rpc.system"
    }
    assert set(spans) == {"grpc", "http"}
    assert spans["grpc"].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert spans["grpc"].parent_span_id.hex() == "b7ad6b7169203331"
    found = {attribute.key: attribute.value.string_value for attribute in spans["http"].attributes}
    assert (found["ferry.model"], found["ferry.version"]) == ("m", "1")


def test_faults_of_the_server_reach_callers_as_an_id_and_nothing_else(site: Site) -> None:
    """The model fails on such an input; its file's path, its nodes and our stack are for the log."""
    site.publish(model_files.lookup(), "lookup")
    with site.server("lookup") as server:
        server.wait_until_healthy()
        request = pb.ModelInferRequest(model_name="lookup")
        request.inputs.add(name="x", datatype="INT64", shape=[1])
        request.raw_input_contents.append((99).to_bytes(8, "little"))
        with pytest.raises(grpc.RpcError) as caught:
            server.channel.unary_unary(INFER)(request.SerializeToString(), timeout=5)
        over_grpc = caught.value.details()
        tensor = {"name": "x", "datatype": "INT64", "shape": [1], "data": [99]}
        with closing(http.client.HTTPConnection(server.http_address, timeout=5)) as connection:
            connection.request("POST", "/v2/models/lookup/infer", orjson.dumps({"inputs": [tensor]}))
            over_http = orjson.loads(connection.getresponse().read())["error"]
        for text in (over_grpc, over_http):
            assert "Traceback" not in text
            assert ".py" not in text
            assert str(site.folder) not in text


# --- --check-config ------------------------------------------------------------------------------


def checked(site: Site, *models: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return site.run_to_its_end(*models, flags=["--check-config", *flags])


def test_a_check_shows_what_would_be_served(site: Site) -> None:
    site.publish(model_files.plus(6), "other")
    ended = checked(site, "m", "other", flags=("--batch", "m=32:500us"))
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["m", "production", "1", "1"] in [line[:4] for line in lines]
    assert "32 rows, 500 µs" in ended.stdout
    assert f"store       {site.store}" in ended.stdout


@pytest.mark.parametrize(
    ("models", "flags", "code", "words"),
    [
        (["m", "later"], (), 3, "nothing is promoted in channel 'production' of model 'later'"),
        (["m", "later"], ("--optional", "later"), 0, ""),
        (["m"], ("--optional", "other"), 2, "model other is optional and not among those to serve"),
        (["m"], ("--tls-certificate", "/nowhere.pem", "--tls-key", "/nowhere.key"), 2, "cannot be read"),
        (["m"], ("--tokens", "/nowhere.toml"), 2, "/nowhere.toml cannot be read"),
        (["m"], ("--batch", "other=3"), 2, "which is not among those to serve"),
        (["m"], ("--store", "s3://models?endpoint=http://127.0.0.1:1"), 6, "127.0.0.1:1"),
    ],
)
def test_a_check_says_what_is_amiss(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    models: list[str],
    flags: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    ended = checked(site, *models, flags=flags)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_check_needs_no_port_and_leaves_nothing_behind(site: Site) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        cache = site.folder / "cache"
        shutil.rmtree(cache)
        ended = checked(site, flags=("--port", server.address.rpartition(":")[2]))
        assert ended.returncode == 0, ended.stderr
        assert not Path(cache).exists()
