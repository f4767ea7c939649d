"""gRPC's headers and trailers. Source: the gRPC protocol over HTTP/2, and RFC 3986 for `grpc-message`."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from ferryline.grpc_server.http2.fields import Block, Fields

Pairs = tuple[tuple[str, str | bytes], ...]
"""Metadata as grpcio has it: bytes for names that end in `-bin`, else text."""

STATUS, MESSAGE, TIMEOUT, ENCODING = "grpc-status", "grpc-message", "grpc-timeout", "grpc-encoding"
BINARY = "-bin"

HEAD: Block = (
    (":status", "200"),
    ("content-type", "application/grpc"),
    ("grpc-accept-encoding", "identity, deflate, gzip"),
)
"""What every answer begins with."""
NOT_GRPC: Block = ((":status", "415"),)
NOT_POST: Block = ((":status", "405"), ("allow", "POST"))
ENCODINGS = frozenset({b"identity", b"deflate", b"gzip"})

_UNITS = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
_MOST_DIGITS = 8
# all that is printed in ASCII but for the percent sign
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if code != ord("%"))
_RESERVED = frozenset({"content-type", "te"})


def seconds_of(timeout: bytes) -> float | None:
    """The seconds in a `grpc-timeout`; None where it is none."""
    unit = _UNITS.get(timeout[-1:])
    digits = timeout[:-1]
    if unit is None or not digits.isdigit() or len(digits) > _MOST_DIGITS:
        return None
    return int(digits) * unit


@lru_cache(maxsize=256)
def ok_trailers(metadata: Pairs) -> Block:
    """What ends an answer that succeeded."""
    return ((STATUS, "0"), *_written(metadata))


def failed_trailers(status: int, text: str, metadata: Iterable[tuple[str, str | bytes]] = ()) -> Block:
    """What ends a call with an error."""
    message = ((MESSAGE, quote(text, safe=_PLAIN)),) if text else ()
    return ((STATUS, str(status)), *message, *_written(metadata))


def _written(metadata: Iterable[tuple[str, str | bytes]]) -> Block:
    return tuple(
        (name, b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value)
        for name, value in metadata
    )


def metadata_in(fields: Fields) -> Pairs:
    """The metadata that a call came with, as grpcio would give it."""
    found: list[tuple[str, str | bytes]] = []
    for raw_name, value in fields:
        if raw_name.startswith(b":"):
            continue
        name = raw_name.decode("ascii", "replace")
        if name in _RESERVED or (name.startswith("grpc-") and not name.endswith(BINARY)):
            continue
        if name.endswith(BINARY):
            found.extend((name, part) for part in _binary(value))
        else:
            found.append((name, value.decode("ascii", "replace")))
    return tuple(found)


def _binary(value: bytes) -> list[bytes]:
    """The values in one header, which may hold several with commas between; what is no base64 is left out."""
    parts = []
    for part in value.split(b","):
        try:
            parts.append(b64decode(part + b"=" * (-len(part) % 4), validate=True))
        except binascii.Error:
            continue
    return parts
