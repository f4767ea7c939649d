"""What the headers of a call say of it, and what to answer to those that are no call of gRPC."""

from __future__ import annotations

from typing import NamedTuple

import grpc

from ferryline.grpc_server.http2.fields import Block, Fields
from ferryline.grpc_server.http2.metadata import (
    ENCODINGS,
    HEAD,
    NOT_GRPC,
    NOT_POST,
    failed_trailers,
    seconds_of,
)

_GRPC = b"application/grpc"


class Head(NamedTuple):  # as it is made for every call whose deadline is written anew
    """The headers of a call.

    Attributes:
        fields: all of them.
        path: the method, as /SERVICE/NAME.
        timeout: seconds that the caller waits; None for ever.
        refusal: all of the answer, where this is no call; None where it is one.
    """

    fields: Fields
    path: str
    timeout: float | None
    refusal: Block | None

    @classmethod
    def of(cls, fields: Fields) -> Head:
        """The head that these fields are."""
        said = dict(fields)
        path, timeout = said.get(b":path"), said.get(b"grpc-timeout")
        seconds = None if timeout is None else seconds_of(timeout)
        refusal = None
        if path is None or said.get(b":method") != b"POST":
            refusal = NOT_POST
        elif not _is_grpc(said.get(b"content-type", b"")):
            refusal = NOT_GRPC
        elif said.get(b"grpc-encoding", b"identity") not in ENCODINGS:
            refusal = _failed(grpc.StatusCode.UNIMPLEMENTED, "this server unpacks gzip and deflate only")
        elif timeout is not None and seconds is None:
            text = "the header grpc-timeout is no time: at most eight digits and a unit"
            refusal = _failed(grpc.StatusCode.INTERNAL, text)
        return cls(fields, (path or b"").decode("ascii", "replace"), seconds, refusal)


def _is_grpc(content_type: bytes) -> bool:
    return content_type == _GRPC or content_type.startswith((_GRPC + b"+", _GRPC + b";"))


def _failed(status: grpc.StatusCode, text: str) -> Block:
    return (*HEAD, *failed_trailers(status.value[0], text))
