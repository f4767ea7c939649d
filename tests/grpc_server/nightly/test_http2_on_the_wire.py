"""The transport's own manners, asked by callers that no gRPC library would be."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import psutil
import pytest

from ferryline.grpc_server.http2 import frames
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ROW, ServerProcess, Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.waiting import wait_for

INFER = "/inference.GRPCInferenceService/ModelInfer"
REQUEST = raw_request("m", x=ROW).SerializeToString()
MIB = 2**20


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


class RawCaller:
    """h2 on a socket."""

    def __init__(self, address: str, **settings: int) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        if settings:
            codes = {h2.settings.SettingCodes[name]: value for name, value in settings.items()}
            self.h2.update_settings(codes)
        self.headers: dict[int, dict[str, str]] = {}
        self.data: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.last_stream: int | None = None
        self.is_closed = False
        self.flush()

    def close(self) -> None:
        self.socket.close()

    def flush(self, step: int = MIB) -> None:
        said = self.h2.data_to_send()
        for at in range(0, len(said), step):
            self.socket.sendall(said[at : at + step])

    def begin(self, path: str = INFER, *, end: bool = False, **headers: str) -> int:
        number: int = self.h2.get_next_available_stream_id()
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "x",
            "content-type": "application/grpc",
            "te": "trailers",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        self.h2.send_headers(number, list(fields.items()), end_stream=end)
        return number

    def call(self, message: bytes = REQUEST, *, step: int = MIB, **headers: str) -> int:
        number = self.begin(**headers)
        self.h2.send_data(number, framed(message), end_stream=True)
        self.flush(step)
        return number

    def read(self, *, acknowledge: bool = True) -> None:
        """Take what the server says next."""
        data = self.socket.recv(MIB)
        if not data:
            self.is_closed = True
            return
        for event in self.h2.receive_data(data):
            self._take(event, acknowledge=acknowledge)
        with contextlib.suppress(OSError):
            self.flush()

    def _take(self, event: Any, *, acknowledge: bool) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            text = {name.decode(): value.decode() for name, value in event.headers}
            self.headers.setdefault(event.stream_id, {}).update(text)
        elif isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
            if acknowledge and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.last_stream = event.last_stream_id

    def answer(self, number: int) -> dict[str, str]:
        while number not in self.ended and not self.is_closed:
            self.read()
        return self.headers[number]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    with site.server("m", flags=["--max-message-mib", "4"]) as running:
        running.wait_until_healthy()
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture
def caller(server: ServerProcess) -> Iterator[RawCaller]:
    made = RawCaller(server.address)
    yield made
    made.close()


def reply_of(caller: RawCaller, number: int) -> float:
    assert caller.answer(number)["grpc-status"] == "0"
    reply = pb.ModelInferResponse.FromString(caller.data[number][5:])
    return float(float_output(reply)[0, 0] - ROW[0, 0])


def test_an_answer_and_where_it_comes_from(caller: RawCaller) -> None:
    number = caller.call()
    assert reply_of(caller, number) == 5
    headers = caller.headers[number]
    assert headers[":status"] == "200"
    assert headers["content-type"] == "application/grpc"
    assert headers["ferry-version"] == "1"
    assert headers["ferry-digest"].startswith("sha256:")


def test_a_request_that_comes_byte_by_byte(caller: RawCaller) -> None:
    assert reply_of(caller, caller.call(step=1)) == 5


def test_a_request_in_many_frames_between_those_of_others(caller: RawCaller) -> None:
    message = framed(REQUEST)
    numbers = [caller.begin() for _ in range(50)]
    for at in range(len(message)):
        for number in numbers:
            caller.h2.send_data(number, message[at : at + 1], end_stream=at == len(message) - 1)
        caller.flush()
    assert {reply_of(caller, number) for number in numbers} == {5}


@pytest.mark.parametrize("window", [1, 7, 100])
def test_a_caller_with_a_small_window(server: ServerProcess, window: int) -> None:
    caller = RawCaller(server.address, INITIAL_WINDOW_SIZE=window)
    try:
        assert reply_of(caller, caller.call()) == 5
    finally:
        caller.close()


def test_a_caller_without_a_table_of_headers(server: ServerProcess) -> None:
    caller = RawCaller(server.address, HEADER_TABLE_SIZE=0)
    try:
        assert {reply_of(caller, caller.call()) for _ in range(5)} == {5}
    finally:
        caller.close()


@pytest.mark.parametrize(
    ("path", "headers", "found"),
    [
        ("/inference.GRPCInferenceService/Nothing", {}, ("200", "12")),
        ("/", {}, ("200", "12")),
        (INFER, {"content_type": "application/json"}, ("415", None)),
        (INFER, {"content_type": "application/grpc-web"}, ("415", None)),
        (INFER, {"grpc_encoding": "snappy"}, ("200", "12")),
        (INFER, {"grpc_timeout": "soon"}, ("200", "13")),
    ],
)
def test_what_is_no_call(
    caller: RawCaller, path: str, headers: dict[str, str], found: tuple[str, str | None]
) -> None:
    number = caller.begin(path, end=True, **headers)
    caller.flush()
    answer = caller.answer(number)
    assert (answer[":status"], answer.get("grpc-status")) == found
    assert reply_of(caller, caller.call()) == 5


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "12"),  # no message
        (framed(REQUEST) * 2, "12"),  # two
        (framed(REQUEST)[:-1], "3"),  # cut off
        (b"\0\0\0", "3"),
        (b"\x07" + framed(REQUEST)[1:], "3"),  # no such flag
        (struct.pack(">BI", 0, 4 * MIB + 1), "8"),  # too large, said before it came
        (b"\x01" + framed(REQUEST)[1:], "0"),  # says that it is packed and is not
    ],
)
def test_what_is_no_request(caller: RawCaller, body: bytes, status: str) -> None:
    number = caller.begin(end=not body)
    if body:
        caller.h2.send_data(number, body, end_stream=True)
    caller.flush()
    assert caller.answer(number)["grpc-status"] == status
    assert reply_of(caller, caller.call()) == 5


def test_requests_without_end_on_a_call_that_takes_one_are_refused_at_once(caller: RawCaller) -> None:
    number = caller.begin()
    caller.h2.send_data(number, framed(REQUEST) * 2)  # and no end
    caller.flush()
    assert caller.answer(number)["grpc-status"] == "12"


def test_an_open_stream_about_the_server_holds_up_no_stop(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    with site.server("m", flags=["--drain-seconds", "60"]) as running:
        running.wait_until_healthy()
        caller = RawCaller(running.address)
        caller.begin("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        assert reply_of(caller, caller.call()) == 5
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(50) == 0
        assert time.monotonic() - began < 40
        caller.close()


def test_a_request_that_never_ends_meets_its_deadline(caller: RawCaller) -> None:
    number = caller.begin(grpc_timeout="200m")
    caller.h2.send_data(number, framed(REQUEST)[:10])
    caller.flush()
    began = time.monotonic()
    assert caller.answer(number)["grpc-status"] == "4"
    assert 0.1 < time.monotonic() - began < 5


def test_http_1_is_turned_away(server: ServerProcess) -> None:
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        said = b""
        while data := plain.recv(MIB):
            said += data
    assert b"speaks gRPC" in said


def test_requests_whose_answers_nobody_reads_are_not_taken_for_ever(server: ServerProcess) -> None:
    host, port = server.address.split(":")
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with socket.create_connection((host, int(port)), timeout=1) as caller:
        asked = calls_until_stuck(caller)
        assert process.memory_info().rss - before < 64 * MIB
    assert 1000 < asked < MOST_CALLS  # its socket is full: the server reads no more
    assert server.plus() == 5


MOST_CALLS = 1_000_000


def calls_until_stuck(caller: socket.socket) -> int:
    """Ask without reading a single answer, as often as the socket takes."""
    fields = {":method": "POST", ":scheme": "http", ":path": INFER, "content-type": "application/grpc"}
    block = bytes(hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in fields.items()]))
    data = framed(REQUEST)
    caller.sendall(frames.PREFACE + frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: MIB}))
    caller.sendall(frames.window_update(0, 2**30))
    for asked in range(MOST_CALLS):
        number = 2 * asked + 1
        head = frames.head(len(data), frames.Kind.DATA, frames.END_STREAM, number)
        try:
            caller.sendall(frames.headers(number, block) + head + data)
        except TimeoutError:
            return asked
    return MOST_CALLS


def test_callers_who_reset_all_they_ask_are_survived(server: ServerProcess) -> None:
    process = psutil.Process(server.process.pid)
    caller = RawCaller(server.address)
    before = process.memory_info().rss
    try:
        for _ in range(5000):
            number = caller.begin()
            caller.h2.reset_stream(number)
            caller.flush()
        assert reply_of(caller, caller.call()) == 5
    finally:
        caller.close()
    assert process.memory_info().rss - before < 16 * MIB


def test_the_end_is_told_and_what_is_under_way_is_answered(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    with site.server("m") as running:
        running.wait_until_healthy()
        caller = RawCaller(running.address)
        slow = caller.begin()
        message = framed(REQUEST)
        caller.h2.send_data(slow, message[:10])
        assert reply_of(caller, caller.call()) == 5
        caller.h2.send_data(slow, message[10:], end_stream=True)
        rest = caller.h2.data_to_send()  # h2 itself says nothing more once it has heard of the end
        running.process.send_signal(signal.SIGTERM)
        while caller.last_stream is None:
            caller.read()
        caller.socket.sendall(rest)
        said = b""
        while data := caller.socket.recv(MIB):
            said += data
        caller.close()
        wait_for(lambda: running.process.poll() is not None, "the end")
        assert running.process.returncode == 0
    size = len(caller.data[slow + 2])
    assert struct.pack(">I", size)[1:] + b"\0\0" + struct.pack(">I", slow) in said  # its frame of data


def test_bytes_that_are_no_message_of_a_method(caller: RawCaller) -> None:
    number = caller.begin("/grpc.health.v1.Health/Check")
    caller.h2.send_data(number, framed(b"\xff"), end_stream=True)
    caller.flush()
    assert caller.answer(number)["grpc-status"] == "3"


def test_an_answer_larger_than_messages_may_be_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.widening(MIB // 8), "wide")
    with site.server("wide", flags=["--max-message-mib", "1"]) as running:
        running.wait_until_healthy()
        caller = RawCaller(running.address)
        number = caller.call(raw_request("wide", x=ROW).SerializeToString())
        answer = caller.answer(number)
        caller.close()
    assert answer["grpc-status"] == "8"
    assert "--max-message-mib" in answer["grpc-message"]
