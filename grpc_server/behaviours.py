"""What grpc.aio calls for each RPC: bytes and a context to an endpoint, and its errors to statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from grpc_server import status_details
from grpc_server.endpoint import Endpoint
from grpc_server.errors import (
    ControlRefusedError,
    DeadlineExceededError,
    ForbiddenError,
    InternalFaultError,
    InvalidRequestError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    UnauthenticatedError,
    UnsupportedError,
)
from grpc_server.provenance import Provenance
from grpc_server.streaming import OrderedStream, StreamAnswers

Context = grpc.aio.ServicerContext[bytes, bytes]
Unary = Callable[[bytes, Context], Awaitable[bytes]]
Stream = Callable[[Any, Context], Awaitable[None]]

LONG_REPLY = 2**15
"""Bytes; a longer one may wait for a slow reader after its handler has returned."""

_STATUSES: dict[type[RequestError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotServedError: grpc.StatusCode.NOT_FOUND,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    ControlRefusedError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    InternalFaultError: grpc.StatusCode.INTERNAL,
}


@dataclass(slots=True)
class CallsUnderWay:
    """The calls of a transport, counted so that it knows when none is left."""

    came: int = 0
    """Requests so far."""
    running: int = 0
    """Calls whose handlers have not returned."""
    sending: int = 0
    """Long replies that are not out yet, though their handlers have returned."""
    streams: set[OrderedStream] = field(default_factory=set)

    @property
    def none(self) -> bool:
        """Whether nothing is under way that a caller waits for."""
        return self.running == 0 and self.sending == 0

    def sent(self, ctx: Any) -> None:
        """A long reply is out, or its caller gone."""
        del ctx
        self.sending -= 1


def unary_behaviour(endpoint: Endpoint[Any], calls: CallsUnderWay) -> Unary:
    """Answers one request with one reply."""

    async def serve(data: bytes, context: Context) -> bytes:
        calls.came += 1
        calls.running += 1
        try:
            answer = endpoint(data, _GrpcCall(context))
            reply = answer if isinstance(answer, bytes) else await answer
        except RequestError as error:
            return await abort(context, error)
        finally:
            calls.running -= 1
        if len(reply) > LONG_REPLY:
            calls.sending += 1
            sent: Any = calls.sent  # the stubs describe no function that would fit
            context.add_done_callback(sent)
        return reply

    return serve


def stream_behaviour(answers: StreamAnswers, calls: CallsUnderWay) -> Stream:
    """Answers each request of a stream, in their order."""

    async def serve(_requests: Any, context: Context) -> None:
        call = _StreamCall(context)

        def answer(data: bytes) -> bytes | Awaitable[bytes]:
            calls.came += 1
            return answers(data, call)

        stream = OrderedStream(answer, context.read, context.write, grpc.aio.EOF)
        calls.running += 1
        calls.streams.add(stream)
        try:
            await stream.run()
        finally:
            calls.streams.discard(stream)
            calls.running -= 1
        if stream.cut_short:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the server is stopping; what it had read is answered"
            )

    return serve


class _GrpcCall:
    """A call as grpc.aio knows it."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def seconds_left(self) -> float | None:
        left: float | None = self._context.time_remaining()
        return left

    def answered_by(self, provenance: Provenance) -> None:
        self._context.set_trailing_metadata(provenance.metadata())


class _StreamCall(_GrpcCall):
    """A stream as grpc.aio knows it; its one set of trailing metadata cannot tell of every answer."""

    __slots__ = ()

    def answered_by(self, provenance: Provenance) -> None:
        pass


def status_of(error: RequestError) -> grpc.StatusCode:
    """The status that says what `error` does."""
    return _STATUSES[type(error)]


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: RequestError) -> NoReturn:
    """End a call with the status that says what `error` does."""
    status = status_of(error)
    details: tuple[tuple[str, bytes], ...] = ()
    if isinstance(error, OverloadedError):
        rich = status_details.with_retry_info(status.value[0], str(error), error.retry_after)
        details = ((status_details.KEY, rich),)
    await context.abort(status, str(error), details)
