"""One connection of HTTP/2, as a server sees it: bytes in, bytes out, a table of streams. Source: RFC 9113.

It has no socket and no clock. `receive` takes what came, `taken` gives what is to be sent. Streams are told
of data and of their end, and answer by `answer`, or piece by piece by `begin`, `send` and `finish`.

    idle ──HEADERS──▶ open ──END_STREAM──▶ half closed (remote) ──answer──▶ closed
                        └────────answer, then RST_STREAM(NO_ERROR)────────▶ closed
                        └────────RST_STREAM of either side────────────────▶ closed

A stream is in the table until both sides have ended it. Frames for one that is not there any more are
counted against the connection's window and otherwise passed over: its caller may not know yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ferryline.grpc_server.http2 import frames
from ferryline.grpc_server.http2.errors import Code, ConnectionFaultError
from ferryline.grpc_server.http2.fields import MOST_FIELD_BYTES, Block, FieldReader, Fields, FieldWriter
from ferryline.grpc_server.http2.frames import Kind, Setting

STREAM_WINDOW = 2**20
"""Bytes of one stream that may come before they are taken."""
CONNECTION_WINDOW = 2**24
MAX_FRAME = 2**18
MOST_STREAMS = 10_000
"""At once on one connection."""
MOST_BLOCK_BYTES = 2 * MOST_FIELD_BYTES
"""Of one header block in all its frames, before it is read."""

_DATA, _HEADERS, _CONTINUATION = int(Kind.DATA), int(Kind.HEADERS), int(Kind.CONTINUATION)
_PREFACE_SIZE = len(frames.PREFACE)


_T = TypeVar("_T")


class Stream:
    """One stream in a connection's table; what serves a call derives from it."""

    __slots__ = (
        "connection",
        "ended",
        "id",
        "is_aside",
        "receive_window",
        "send_window",
        "taken",
        "trailers",
        "unsent",
    )

    def __init__(self, connection: Connection, number: int, *, ended: bool) -> None:
        self.connection = connection
        self.id = number
        self.ended = ended
        """Whether the caller has sent all."""
        self.is_aside = False
        """Whether a stop does not wait for it."""
        self.send_window = connection.first_send_window
        self.receive_window = STREAM_WINDOW
        self.taken = 0
        """Bytes that were taken and for which no window was given back yet."""
        self.unsent: memoryview | None = None
        """What waits for a window."""
        self.trailers: Block | None = None
        """What ends the stream once nothing waits any more."""

    def received(self, data: bytes) -> None:
        """Data came, the last if `ended` is set."""
        raise NotImplementedError

    def was_reset(self) -> None:
        """The caller wants no answer any more, or the connection is gone."""
        raise NotImplementedError

    def was_sent(self) -> None:
        """Nothing waits for a window any more."""
        raise NotImplementedError


_Head_contra = TypeVar("_Head_contra", contravariant=True)


class Acceptor(Protocol[_Head_contra]):
    """Decides what serves a call."""

    def __call__(
        self, connection: Connection, number: int, head: _Head_contra, *, ended: bool
    ) -> Stream | None:
        """The stream that serves it; None where it was answered already."""
        ...


@dataclass(slots=True)
class _Block:
    """A header block whose frames are still coming."""

    stream: int
    ended: bool
    data: bytes


class Connection:
    """The state of one connection.

    Args:
        accept: makes the stream for a call that begins.
        meaning: what `accept` is to know of a call's headers.
    """

    def __init__(self, accept: Acceptor[_T], meaning: Callable[[Fields], _T]) -> None:
        self._accept: Acceptor[Any] = accept
        self.streams: dict[int, Stream] = {}
        self.last_stream = 0
        """The highest stream that its caller began."""
        self.refusing_above: int | None = None
        """Streams above this one are refused: the caller was told that the connection ends."""
        self.first_send_window = frames.FIRST_WINDOW
        self._send_window = frames.FIRST_WINDOW
        self._receive_window = CONNECTION_WINDOW
        self._taken = 0
        self._max_frame = frames.SMALLEST_MAX_FRAME
        self._reader = FieldReader(meaning)
        self._writer = FieldWriter()
        self._waiting: dict[int, Stream] = {}
        self._block: _Block | None = None
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = _PREFACE_SIZE
        self._is_greeted = False
        self._out: list[bytes] = [
            frames.settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    Setting.MAX_FRAME_SIZE: MAX_FRAME,
                    Setting.MAX_HEADER_LIST_SIZE: MOST_FIELD_BYTES,
                }
            ),
            frames.window_update(0, CONNECTION_WINDOW - frames.FIRST_WINDOW),
        ]
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.PRIORITY: self._priority,
            Kind.RST_STREAM: self._reset_by_caller,
            Kind.SETTINGS: self._settings,
            Kind.PUSH_PROMISE: self._push_promise,
            Kind.PING: self._ping,
            Kind.WINDOW_UPDATE: self._window_update,
        }

    # What comes in

    def receive(self, data: bytes) -> None:
        """Take bytes that came.

        Raises:
            ConnectionFaultError: the connection cannot go on; `taken` has the farewell.
        """
        if self._chunks or len(data) < self._needed:
            # a large frame comes in many pieces, and joining all of them at each would take their square
            self._chunks.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        try:
            rest = self._frames(data)
        except ConnectionFaultError as fault:
            self._out.append(frames.goaway(self.last_stream, fault.code, str(fault)))
            raise
        self._held = len(rest)
        if rest:
            self._chunks.append(rest)

    def _frames(self, data: bytes) -> bytes:
        at, end = 0, len(data)
        if not self._is_greeted:
            if not data.startswith(frames.PREFACE):
                raise ConnectionFaultError(Code.PROTOCOL_ERROR, "this port speaks gRPC, which is HTTP/2")
            self._is_greeted = True
            at = _PREFACE_SIZE
        while end - at >= frames.HEAD_BYTES:
            high, low, kind, flags, number = frames.read_head(data, at)
            size = (high << 8) | low
            if size > MAX_FRAME:
                raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            begin, last = at + frames.HEAD_BYTES, at + frames.HEAD_BYTES + size
            if last > end:
                self._needed = last - at
                return data[at:]
            self._frame(kind, flags, number & frames.STREAM_BITS, data[begin:last])
            at = last
        self._needed = frames.HEAD_BYTES
        return data[at:]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None:
            self._continuation(kind, flags, number, payload)
        elif kind == _DATA:
            self._data(flags, number, payload)
        elif kind == _HEADERS:
            self._headers(flags, number, payload)
        elif kind == _CONTINUATION:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "CONTINUATION of nothing")
        else:
            handler = self._handlers.get(kind)  # others are to be passed over
            if handler is not None:
                handler(flags, number, payload)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & frames.PADDED:
            payload = frames.without_padding(payload)
        if flags & frames.PRIORITISED:
            payload = payload[5:]
        ended = bool(flags & frames.END_STREAM)
        if not number & 1:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "callers begin odd streams")
        if flags & frames.END_HEADERS:
            self._begun(number, payload, ended=ended)
        else:
            self._block = _Block(number, ended, payload)

    def _continuation(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None or kind != _CONTINUATION or number != block.stream:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "a header block is interrupted")
        # an empty one costs its sender nothing and might come for ever
        if not payload or len(block.data) + len(payload) > MOST_BLOCK_BYTES:
            raise ConnectionFaultError(Code.ENHANCE_YOUR_CALM, "the headers of a call are too large")
        block.data += payload
        if flags & frames.END_HEADERS:
            self._block = None
            self._begun(number, block.data, ended=block.ended)

    def _begun(self, number: int, block: bytes, *, ended: bool) -> None:
        head = self._reader.read(block)  # even of a stream that is refused, for the table's sake
        if number <= self.last_stream:
            self._trailers(number, ended=ended)
            return
        self.last_stream = number
        refused = self.refusing_above is not None and number > self.refusing_above
        if refused or len(self.streams) >= MOST_STREAMS:
            self._out.append(frames.reset(number, Code.REFUSED_STREAM))
            return
        stream = self._accept(self, number, head, ended=ended)
        if stream is None:
            if not ended:
                self._out.append(frames.reset(number, Code.NO_ERROR))
        else:
            self.streams[number] = stream
            if ended:
                stream.received(b"")

    def _trailers(self, number: int, *, ended: bool) -> None:
        stream = self.streams.get(number)
        if stream is None:
            return
        if stream.ended or not ended:
            self._fail(stream, Code.PROTOCOL_ERROR)
            return
        stream.ended = True
        stream.received(b"")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFaultError(Code.FLOW_CONTROL_ERROR, "more data than the connection may send")
        self._taken += size
        if self._taken > CONNECTION_WINDOW // 2:
            self._out.append(frames.window_update(0, self._taken))
            self._receive_window += self._taken
            self._taken = 0
        if flags & frames.PADDED:
            payload = frames.without_padding(payload)
        stream = self.streams.get(number)
        if stream is None:
            self._require_known(number)
            return
        if stream.ended:
            self._fail(stream, Code.STREAM_CLOSED)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            self._fail(stream, Code.FLOW_CONTROL_ERROR)
            return
        if size != len(payload):
            self.consumed(stream, size - len(payload))
        if flags & frames.END_STREAM:
            stream.ended = True
        stream.received(payload)

    def _priority(self, _flags: int, number: int, payload: bytes) -> None:
        if number == 0 or len(payload) != 5:  # noqa: PLR2004 - section 6.3
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "PRIORITY of nothing")

    def _reset_by_caller(self, _flags: int, number: int, payload: bytes) -> None:
        frames.read_number(payload, "RST_STREAM")
        stream = self.streams.pop(number, None)
        if stream is None:
            self._require_known(number)
            return
        self._waiting.pop(number, None)
        stream.was_reset()

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & frames.ACK:
            return
        for key, value in frames.read_settings(payload):
            if key == Setting.HEADER_TABLE_SIZE:
                self._writer.allow(value)
            elif key == Setting.INITIAL_WINDOW_SIZE:
                self._first_window(value)
            elif key == Setting.MAX_FRAME_SIZE:
                if not frames.SMALLEST_MAX_FRAME <= value <= frames.LARGEST_MAX_FRAME:
                    raise ConnectionFaultError(Code.PROTOCOL_ERROR, f"frames of {value} bytes")
                self._max_frame = min(value, MAX_FRAME)
        self._out.append(frames.SETTINGS_ACK)
        self._go_on()

    def _first_window(self, value: int) -> None:
        if value > frames.LARGEST_WINDOW:
            raise ConnectionFaultError(Code.FLOW_CONTROL_ERROR, f"a window of {value} bytes")
        change = value - self.first_send_window
        self.first_send_window = value
        for stream in self.streams.values():
            stream.send_window += change

    def _push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFaultError(Code.PROTOCOL_ERROR, "callers promise nothing")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number != 0 or len(payload) != 8:  # noqa: PLR2004 - section 6.7
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, "PING of a stream, or of another size")
        if not flags & frames.ACK:
            self._out.append(frames.ping(payload, ack=True))

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        size = frames.read_number(payload, "WINDOW_UPDATE") & frames.STREAM_BITS
        if number == 0:
            self._send_window += size
            if size == 0 or self._send_window > frames.LARGEST_WINDOW:
                raise ConnectionFaultError(Code.FLOW_CONTROL_ERROR, "a window of no size, or too large")
            self._go_on()
            return
        stream = self.streams.get(number)
        if stream is None:
            self._require_known(number)
            return
        stream.send_window += size
        if size == 0 or stream.send_window > frames.LARGEST_WINDOW:
            self._fail(stream, Code.FLOW_CONTROL_ERROR)
        elif number in self._waiting:
            self._send_some(stream)

    def _require_known(self, number: int) -> None:
        """A stream that is not in the table was there once."""
        if number == 0 or number > self.last_stream:
            raise ConnectionFaultError(Code.PROTOCOL_ERROR, f"stream {number} was not begun")

    # What goes out

    def taken(self) -> bytes:
        """What is to be sent; it is for the caller to send it."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    def answer(self, stream: Stream, head: Block, data: bytes, trailers: Block) -> None:
        """Headers, data and trailers, and the end of the stream."""
        size, number = len(data), stream.id
        if size <= self._send_window and size <= stream.send_window and size <= self._max_frame:
            self._send_window -= size
            write = self._writer.write
            self._out.append(
                frames.headers(number, write(head))
                + frames.data_head(number, size)
                + data
                + frames.headers(number, write(trailers), frames.END_STREAM)
            )
            self._end(stream)
        else:
            self.begin(stream, head)
            self.send(stream, data)
            self.finish(stream, trailers)

    def begin(self, stream: Stream, head: Block) -> None:
        """Headers, with data to come."""
        self._out.append(frames.headers(stream.id, self._writer.write(head)))

    def send(self, stream: Stream, data: bytes) -> bool:
        """Data; whether all of it may go out at once. No more may be given before it has."""
        stream.unsent = memoryview(data)
        return self._send_some(stream)

    def finish(self, stream: Stream, trailers: Block) -> None:
        """Trailers, after the data that still waits, and the end of the stream."""
        if stream.unsent is not None:
            stream.trailers = trailers
            return
        self._out.append(frames.headers(stream.id, self._writer.write(trailers), frames.END_STREAM))
        self._end(stream)

    def refuse(self, number: int, fields: Block) -> None:
        """Headers that are all of an answer, for a stream that is not in the table."""
        self._out.append(frames.headers(number, self._writer.write(fields), frames.END_STREAM))

    def waiting_bytes(self) -> int:
        """Bytes that wait for windows."""
        if not self._waiting:
            return 0
        return sum(len(stream.unsent) for stream in self._waiting.values() if stream.unsent is not None)

    def reset(self, stream: Stream, code: Code) -> None:
        """End a stream without an answer."""
        if self.streams.pop(stream.id, None) is not None:
            self._waiting.pop(stream.id, None)
            self._out.append(frames.reset(stream.id, code))

    def consumed(self, stream: Stream, size: int) -> None:
        """So many bytes of a stream are taken: its caller may send as many more."""
        stream.taken += size
        if stream.taken > STREAM_WINDOW // 2 and not stream.ended:
            self._out.append(frames.window_update(stream.id, stream.taken))
            stream.receive_window += stream.taken
            stream.taken = 0

    def ping(self) -> None:
        """Ask whether the other side lives."""
        self._out.append(frames.ping(bytes(8)))

    def say_that_it_ends(self) -> None:
        """Ask the caller to begin no more streams; those that are on their way are still taken."""
        self._out.append(frames.goaway(frames.LARGEST_WINDOW, Code.NO_ERROR, "the server is stopping"))

    def end_now(self) -> None:
        """Take no more streams: their callers know that they were not looked at and may try elsewhere."""
        self.refusing_above = self.last_stream
        self._out.append(frames.goaway(self.last_stream, Code.NO_ERROR, "the server is stopping"))

    def lost(self) -> None:
        """The connection is gone, and with it all callers."""
        streams = list(self.streams.values())
        self.streams.clear()
        self._waiting.clear()
        for stream in streams:
            stream.was_reset()

    def _send_some(self, stream: Stream) -> bool:
        """Send what the windows allow; whether nothing waits any more."""
        unsent, number = stream.unsent, stream.id
        if unsent is None:
            return True
        at = 0
        while at < len(unsent):
            size = min(len(unsent) - at, self._send_window, stream.send_window, self._max_frame)
            if size <= 0:
                stream.unsent = unsent[at:]
                self._waiting[number] = stream
                return False
            self._send_window -= size
            stream.send_window -= size
            self._out.append(frames.data_head(number, size) + unsent[at : at + size])
            at += size
        stream.unsent = None
        if self._waiting.pop(number, None) is not None:
            if stream.trailers is not None:
                self.finish(stream, stream.trailers)
            stream.was_sent()
        return True

    def _go_on(self) -> None:
        """There is more room for all: in turn, as each may take all of it."""
        for stream in list(self._waiting.values()):
            self._send_some(stream)

    def _end(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        if not stream.ended:
            self._out.append(frames.reset(stream.id, Code.NO_ERROR))

    def _fail(self, stream: Stream, code: Code) -> None:
        self.reset(stream, code)
        stream.was_reset()
