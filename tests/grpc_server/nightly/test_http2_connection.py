"""One connection without a socket, held to the package h2 as its caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferryline.grpc_server.http2 import frames
from ferryline.grpc_server.http2.connection import (
    CONNECTION_WINDOW,
    MAX_FRAME,
    STREAM_WINDOW,
    Connection,
    Stream,
)
from ferryline.grpc_server.http2.errors import Code, ConnectionFaultError
from ferryline.grpc_server.http2.fields import Fields
from ferryline.grpc_server.http2.frames import Kind

HEAD = ((":status", "200"),)
TRAILERS = (("grpc-status", "0"), ("ferry-version", "7"))
CALL = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B"), (":authority", "x")]


class Echo(Stream):
    """Answers with what came, once all of it has."""

    __slots__ = ("data", "is_reset", "times")

    def __init__(self, connection: Connection, number: int, times: int, *, ended: bool) -> None:
        super().__init__(connection, number, ended=ended)
        self.data = b""
        self.times = times
        self.is_reset = False

    def received(self, data: bytes) -> None:
        self.data += data
        self.connection.consumed(self, len(data))
        if self.ended:
            self.connection.answer(self, HEAD, self.data * self.times, TRAILERS)

    def was_reset(self) -> None:
        self.is_reset = True

    def was_sent(self) -> None:
        pass


class Server:
    """A connection that echoes."""

    def __init__(self, times: int = 1) -> None:
        self.calls: list[Echo] = []
        self.fields: list[Fields] = []
        self._times = times
        self.connection = Connection(self._accept, list)

    def _accept(self, connection: Connection, number: int, fields: Fields, *, ended: bool) -> Stream:
        self.fields.append(fields)
        self.calls.append(Echo(connection, number, self._times, ended=ended))
        return self.calls[-1]


class Caller:
    """h2 as a client, and what it was answered."""

    def __init__(self, server: Server, cut: Callable[[bytes], Iterable[bytes]] = lambda data: [data]) -> None:
        self._server = server
        self._cut = cut
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.data: dict[int, bytes] = {}
        self.trailers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.events: list[Any] = []

    def call(self, body: bytes, *, end: bool = True) -> int:
        number: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, CALL, end_stream=end and not body)
        while body:
            size = min(len(body), self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if size == 0:
                self.exchange()
                continue
            self.h2.send_data(number, body[:size], end_stream=end and size == len(body))
            body = body[size:]
        return number

    def exchange(self, *, acknowledge: bool = True) -> None:
        """Both sides say what they have to say, until neither has more."""
        while True:
            said = self.h2.data_to_send()
            for piece in self._cut(said):
                self._server.connection.receive(piece)
            answer = self._server.connection.taken()
            if not answer:
                if not said:
                    return
                continue
            for event in self.h2.receive_data(answer):
                self._take(event, acknowledge=acknowledge)

    def _take(self, event: Any, *, acknowledge: bool) -> None:
        self.events.append(event)
        if isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
            if acknowledge:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[event.stream_id] = list(event.headers)


def pieces(data: st.DataObject) -> Callable[[bytes], list[bytes]]:
    def cut(text: bytes) -> list[bytes]:
        found = []
        while text:
            size = data.draw(st.integers(1, len(text)))
            found.append(text[:size])
            text = text[size:]
        return found

    return cut


@settings(max_examples=40)
@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=5), st.data())
def test_answers_are_the_same_however_the_bytes_are_cut(sizes: list[int], data: st.DataObject) -> None:
    caller = Caller(Server(), pieces(data))
    caller.exchange()
    bodies = {
        caller.call(bytes([number + 1]) * size): bytes([number + 1]) * size
        for number, size in enumerate(sizes)
    }
    caller.exchange()
    for number, body in bodies.items():
        assert caller.data.get(number, b"") == body
        assert (b"grpc-status", b"0") in [tuple(field) for field in caller.trailers[number]]


@settings(max_examples=25)
@given(
    window=st.integers(1, 70_000),
    sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=4),
    frame=st.sampled_from([2**14, 2**17]),
)
def test_answers_keep_to_the_callers_windows(window: int, sizes: list[int], frame: int) -> None:
    server = Server(times=2)
    caller = Caller(server)
    # h2 itself refuses what breaks a window or is larger than a frame may be
    caller.h2.update_settings(
        {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: frame,
        }
    )
    caller.exchange()
    numbers = [caller.call(b"x" * size) for size in sizes]
    caller.exchange()
    assert [len(caller.data.get(number, b"")) for number in numbers] == [2 * size for size in sizes]
    assert set(caller.trailers) == set(numbers)
    assert server.connection.streams == {}


def test_an_answer_waits_for_its_caller_and_others_do_not() -> None:
    server = Server()
    caller = Caller(server)
    caller.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    caller.exchange()
    slow, quick = caller.call(b"s" * 100), caller.call(b"q" * 5)
    caller.exchange(acknowledge=False)
    assert (caller.data[slow], caller.data[quick]) == (b"s" * 10, b"q" * 5)
    assert server.connection.waiting_bytes() == 90
    caller.h2.increment_flow_control_window(90, slow)
    caller.exchange(acknowledge=False)
    assert caller.data[slow] == b"s" * 100
    assert server.connection.waiting_bytes() == 0
    assert slow in caller.trailers


def test_a_window_that_shrinks_below_nothing_grows_again() -> None:
    caller = Caller(Server())
    caller.exchange()
    number = caller.call(b"x" * 65_000)
    caller.exchange(acknowledge=False)
    caller.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    other = caller.call(b"y")
    caller.exchange(acknowledge=False)
    assert other not in caller.data
    caller.h2.increment_flow_control_window(1, other)
    caller.exchange(acknowledge=False)
    assert (len(caller.data[number]), caller.data[other]) == (65_000, b"y")


def test_a_long_request_is_given_room_as_it_comes() -> None:
    caller = Caller(Server())
    caller.exchange()
    size = 2 * CONNECTION_WINDOW
    number = caller.call(b"x" * size)
    caller.exchange()
    assert len(caller.data[number]) == size


def test_a_caller_who_resets_is_heard() -> None:
    server = Server()
    caller = Caller(server)
    number = caller.call(b"abc", end=False)
    caller.exchange()
    caller.h2.reset_stream(number)
    caller.exchange()
    assert server.calls[0].is_reset
    assert server.connection.streams == {}


def test_an_answer_before_the_end_of_the_request_ends_the_stream() -> None:
    server = Server()
    caller = Caller(server)
    number = caller.call(b"abc", end=False)
    caller.exchange()
    server.connection.answer(server.calls[0], HEAD, b"early", TRAILERS)
    caller.exchange()
    assert caller.data[number] == b"early"
    ended = [event for event in caller.events if isinstance(event, h2.events.StreamReset)]
    assert [event.error_code for event in ended] == [Code.NO_ERROR]


def test_a_lost_connection_is_told_to_all_its_calls() -> None:
    server = Server()
    caller = Caller(server)
    caller.call(b"abc", end=False)
    caller.call(b"abc", end=False)
    caller.exchange()
    server.connection.lost()
    assert [call.is_reset for call in server.calls] == [True, True]


def test_calls_that_begin_after_the_end_are_refused_as_not_looked_at() -> None:
    server = Server()
    caller = Caller(server)
    number = caller.call(b"abc", end=False)
    caller.exchange()
    server.connection.say_that_it_ends()
    late = caller.call(b"in time")
    server.connection.receive(caller.h2.data_to_send())
    assert len(server.calls) == 2
    server.connection.end_now()
    wire = Wire(server)
    assert wire.say(wire.headers(late + 2), frames.head(1, Kind.DATA, frames.END_STREAM, late + 2) + b"x")
    assert (Kind.RST_STREAM, late + 2, Code.REFUSED_STREAM.to_bytes(4, "big")) in wire.answers
    server.connection.answer(server.calls[0], HEAD, b"", TRAILERS)
    assert number not in server.connection.streams


def test_pings_are_answered_and_what_is_unknown_is_passed_over() -> None:
    wire = Wire(Server())
    assert wire.say(frames.ping(b"12345678"), frames.head(3, 0xFA, 0xFF, 9) + b"abc")
    assert (Kind.PING, 0, b"12345678") in wire.answers


class Wire:
    """A caller who writes frames as it likes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._block = b"\x83\x86\x44\x04/a/B"  # POST, http, /a/B
        self.answers: list[tuple[int, int, bytes]] = []
        if not server.calls:
            server.connection.receive(frames.PREFACE + frames.settings({}))

    def headers(self, number: int, flags: int = 0) -> bytes:
        return frames.headers(number, self._block, flags)

    def say(self, *sent: bytes) -> bool:
        """Whether the connection goes on."""
        try:
            self._server.connection.receive(b"".join(sent))
        except ConnectionFaultError:
            return False
        finally:
            self._take(self._server.connection.taken())
        return True

    def _take(self, data: bytes) -> None:
        while data:
            high, low, kind, _, number = frames.read_head(data)
            size = frames.HEAD_BYTES + (high << 8 | low)
            self.answers.append((kind, number, data[frames.HEAD_BYTES : size]))
            data = data[size:]

    @property
    def farewell(self) -> Code | None:
        last = [payload for kind, _, payload in self.answers if kind == Kind.GOAWAY]
        return Code(int.from_bytes(last[-1][4:8], "big")) if last else None


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    return frames.head(len(payload), Kind.DATA, flags, number) + payload


def frame(kind: int, payload: bytes = b"", number: int = 0, flags: int = 0) -> bytes:
    return frames.head(len(payload), kind, flags, number) + payload


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (data(1, b"x"), Code.PROTOCOL_ERROR),
        (data(0, b"x"), Code.PROTOCOL_ERROR),
        (frame(Kind.CONTINUATION, b"x", 1), Code.PROTOCOL_ERROR),
        (frame(Kind.PUSH_PROMISE, b"\0\0\0\2", 1), Code.PROTOCOL_ERROR),
        (frame(Kind.PING, b"short"), Code.PROTOCOL_ERROR),
        (frame(Kind.PING, b"12345678", 1), Code.PROTOCOL_ERROR),
        (frame(Kind.SETTINGS, b"12345"), Code.FRAME_SIZE_ERROR),
        (frame(Kind.SETTINGS, b"", 1), Code.PROTOCOL_ERROR),
        (frame(Kind.SETTINGS, b"\0\4\xff\xff\xff\xff"), Code.FLOW_CONTROL_ERROR),
        (frame(Kind.SETTINGS, b"\0\5\0\0\0\1"), Code.PROTOCOL_ERROR),
        (frame(Kind.WINDOW_UPDATE, b"\0\0\0\0"), Code.FLOW_CONTROL_ERROR),
        (frame(Kind.WINDOW_UPDATE, b"\x7f\xff\xff\xff"), Code.FLOW_CONTROL_ERROR),
        (frame(Kind.WINDOW_UPDATE, b"\0\0\0\1", 7), Code.PROTOCOL_ERROR),
        (frame(Kind.WINDOW_UPDATE, b"\0\0"), Code.FRAME_SIZE_ERROR),
        (frame(Kind.RST_STREAM, b"\0\0\0\0", 9), Code.PROTOCOL_ERROR),
        (frame(Kind.RST_STREAM, b"\0", 1), Code.FRAME_SIZE_ERROR),
        (frame(Kind.PRIORITY, b"\0\0\0\0\0", 0), Code.PROTOCOL_ERROR),
        (frames.headers(2, b"\x83"), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, b"\xff", 1, frames.END_HEADERS | frames.PADDED), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, b"\x83", 1) + frames.ping(bytes(8)), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, b"\x83", 1) + frame(Kind.CONTINUATION, b"", 1), Code.ENHANCE_YOUR_CALM),
        (
            frame(Kind.HEADERS, b"\x83", 1) + frame(Kind.CONTINUATION, bytes(40_000), 1),
            Code.ENHANCE_YOUR_CALM,
        ),
        (frame(Kind.HEADERS, b"\x83", 1) + frame(Kind.CONTINUATION, b"\x83", 3), Code.PROTOCOL_ERROR),
        (frames.head(MAX_FRAME + 1, Kind.DATA, 0, 1), Code.FRAME_SIZE_ERROR),
        (frames.headers(1, b"\xc0"), Code.COMPRESSION_ERROR),
    ],
)
def test_what_a_caller_must_not_send(sent: bytes, code: Code) -> None:
    wire = Wire(Server())
    assert not wire.say(sent)
    assert wire.farewell is code


def test_what_is_not_http2_is_told_so() -> None:
    server = Server()
    with pytest.raises(ConnectionFaultError, match="speaks gRPC"):
        server.connection.receive(b"GET /v2/health/ready HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (lambda wire: [wire.headers(1), wire.headers(1)], Code.PROTOCOL_ERROR),
        (lambda wire: [wire.headers(1), frame(Kind.WINDOW_UPDATE, b"\0\0\0\0", 1)], Code.FLOW_CONTROL_ERROR),
        (
            lambda wire: [wire.headers(1), *[data(1, bytes(MAX_FRAME))] * 4, data(1, b"x")],
            Code.FLOW_CONTROL_ERROR,
        ),
    ],
    ids=["headers twice", "window of nothing", "more than the window"],
)
def test_what_ends_a_stream_and_not_its_connection(
    sent: Callable[[Wire], list[bytes]], code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Echo, "received", lambda *_: None)  # takes nothing
    assert 4 * MAX_FRAME == STREAM_WINDOW
    server = Server()
    wire = Wire(server)
    assert wire.say(*sent(wire))
    assert (Kind.RST_STREAM, 1, code.to_bytes(4, "big")) in wire.answers
    assert server.calls[0].is_reset
    assert wire.say(frames.ping(bytes(8)))


def test_padding_is_taken_off_and_counts_for_the_windows() -> None:
    server = Server()
    wire = Wire(server)
    padded = bytes([3]) + b"abc" + bytes(3)
    assert wire.say(wire.headers(1), data(1, padded, frames.PADDED | frames.END_STREAM))
    assert server.calls[0].data == b"abc"


def test_trailers_of_a_request_end_it() -> None:
    server = Server()
    wire = Wire(server)
    assert wire.say(wire.headers(1), data(1, b"abc"), frames.headers(1, b"", frames.END_STREAM))
    assert (Kind.DATA, 1, b"abc") in wire.answers


def test_headers_in_many_frames() -> None:
    server = Server()
    wire = Wire(server)
    block = b"\x83\x86\x44\x04/a/B"
    parts = [frame(Kind.HEADERS, block[:1], 1), frame(Kind.CONTINUATION, block[1:5], 1)]
    assert wire.say(*parts, frame(Kind.CONTINUATION, block[5:], 1, frames.END_HEADERS))
    assert server.fields == [[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/B")]]


@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 6), st.binary(max_size=30)))
)
def test_no_frames_do_more_than_end_the_connection(sent: list[tuple[int, int, int, bytes]]) -> None:
    wire = Wire(Server())
    for kind, flags, number, payload in sent:
        if not wire.say(frame(kind, payload, number, flags)):
            assert wire.farewell is not None
            return


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_end_the_connection(sent: bytes) -> None:
    wire = Wire(Server())
    if not wire.say(sent):
        assert wire.farewell is not None
