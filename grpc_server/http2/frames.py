"""Frames of HTTP/2: a head of nine bytes, then a payload. Source: RFC 9113, sections 4 and 6."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from ferryline.grpc_server.http2.errors import Code, ConnectionFaultError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
SMALLEST_MAX_FRAME = 2**14
LARGEST_MAX_FRAME = 2**24 - 1
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 2**16 - 1
"""Bytes that either side may send before it hears more, on a connection and on each stream."""

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

_HEAD = Struct(">HBBBI")
read_head = _HEAD.unpack_from
"""Length above its lowest byte, that byte, kind, flags, stream; of bytes and a position."""
_write_head = _HEAD.pack
_NUMBER = Struct(">I")
_SETTING = Struct(">HI")
_TWO_NUMBERS = Struct(">II")

STREAM_BITS = 0x7FFFFFFF


class Kind(IntEnum):
    """The kinds of frames."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


class Setting(IntEnum):
    """What a side may settle."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


_DATA, _HEADERS = int(Kind.DATA), int(Kind.HEADERS)


def head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """The head of a frame whose payload has `size` bytes."""
    return _write_head(size >> 8, size & 0xFF, kind, flags, stream)


def headers(stream: int, block: bytes, flags: int = 0) -> bytes:
    """A header block that fits one frame, which those of this server do."""
    size = len(block)
    return _write_head(size >> 8, size & 0xFF, _HEADERS, flags | END_HEADERS, stream) + block


def data_head(stream: int, size: int) -> bytes:
    """The head of a frame with `size` bytes of data, more or a trailer following."""
    return _write_head(size >> 8, size & 0xFF, _DATA, 0, stream)


def settings(values: dict[Setting, int]) -> bytes:
    """What this side settles."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in values.items())
    return head(len(payload), Kind.SETTINGS, 0, 0) + payload


SETTINGS_ACK = head(0, Kind.SETTINGS, ACK, 0)


def reset(stream: int, code: Code) -> bytes:
    """The end of a stream."""
    return head(4, Kind.RST_STREAM, 0, stream) + _NUMBER.pack(code)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """A question whether the other side lives, or the answer; eight bytes."""
    return head(8, Kind.PING, ACK if ack else 0, 0) + payload


def goaway(last_stream: int, code: Code, text: str = "") -> bytes:
    """The end of a connection: streams above `last_stream` were not and will not be looked at."""
    payload = _TWO_NUMBERS.pack(last_stream, code) + text.encode()
    return head(len(payload), Kind.GOAWAY, 0, 0) + payload


def window_update(stream: int, size: int) -> bytes:
    """Leave to send so many bytes more; stream 0 is the connection."""
    return head(4, Kind.WINDOW_UPDATE, 0, stream) + _NUMBER.pack(size)


def read_number(payload: bytes, what: str) -> int:
    """The one number of 32 bits that a payload is.

    Raises:
        ConnectionFaultError: it has another size.
    """
    if len(payload) != _NUMBER.size:
        raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, f"{what} of {len(payload)} bytes")
    number: int = _NUMBER.unpack(payload)[0]
    return number


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """What the other side settles, in its order.

    Raises:
        ConnectionFaultError: the payload is cut off.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFaultError(Code.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return list(_SETTING.iter_unpack(payload))


def without_padding(payload: bytes) -> bytes:
    """The payload of a padded frame.

    Raises:
        ConnectionFaultError: there is more padding than payload.
    """
    if not payload or payload[0] >= len(payload):
        raise ConnectionFaultError(Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
