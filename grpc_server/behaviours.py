"""What the transport calls for each RPC, as grpc.aio would: bytes to an endpoint, its errors to statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from ferryline.grpc_server import status_details
from ferryline.grpc_server.endpoint import Endpoint
from ferryline.grpc_server.errors import (
    ControlRefusedError,
    DeadlineExceededError,
    ForbiddenError,
    InternalFaultError,
    InvalidRequestError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedError,
)
from ferryline.grpc_server.packing import FIRST_BYTES, Unpacker
from ferryline.grpc_server.provenance import Provenance
from ferryline.grpc_server.security.guard import HEADER
from ferryline.grpc_server.streaming import OrderedStream, StreamAnswers

Context = grpc.aio.ServicerContext[bytes, bytes]
Unary = Callable[[bytes, Context], Awaitable[bytes]]
Stream = Callable[[Any, Context], Awaitable[None]]

_STATUSES: dict[type[RequestError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotServedError: grpc.StatusCode.NOT_FOUND,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    ControlRefusedError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLargeError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    InternalFaultError: grpc.StatusCode.INTERNAL,
}


@dataclass(slots=True, eq=False)
class OpenStream:
    """A stream that is served, and the header by which it was let in."""

    stream: OrderedStream
    header: str | None
    refusal: RequestError | None = None
    """Why it may go on no more."""

    def refuse(self, error: RequestError) -> None:
        """Read no more of it, answer what was read, and end it with `error`."""
        self.refusal = error
        self.stream.finish()


@dataclass(slots=True)
class CallsUnderWay:
    """The calls of a transport that behaviours serve."""

    came: int = 0
    """Requests so far."""
    streams: set[OpenStream] = field(default_factory=set)


def unary_behaviour(endpoint: Endpoint[Any], calls: CallsUnderWay, unpacker: Unpacker) -> Unary:
    """Answers one request with one reply."""

    async def serve(data: bytes, context: Context) -> bytes:
        calls.came += 1
        try:
            if data[:1] in FIRST_BYTES:
                data = await unpacker.unpack(data)
            answer = endpoint(data, _GrpcCall(context))
            return answer if isinstance(answer, bytes) else await answer
        except RequestError as error:
            del data
            return await abort(context, error)

    return serve


def stream_behaviour(answers: StreamAnswers, calls: CallsUnderWay, unpacker: Unpacker) -> Stream:
    """Answers each request of a stream, in their order."""

    async def serve(_requests: Any, context: Context) -> None:
        call = _StreamCall(context)

        too_large: TooLargeError | None = None

        async def read() -> Any:
            # unpacked here, so that a stream's bound counts what a request holds, and not what it came in
            nonlocal too_large
            data: Any = await context.read()
            too_large = None
            if data is grpc.aio.EOF or data[:1] not in FIRST_BYTES:
                return data
            try:
                return await unpacker.unpack(data)
            except TooLargeError as error:
                too_large = error
                return b""

        def answer(data: bytes) -> bytes | Awaitable[bytes]:
            calls.came += 1
            return answers(data, call) if too_large is None else answers.failed(too_large)

        stream = OrderedStream(answer, read, context.write, grpc.aio.EOF)
        opened = OpenStream(stream, header_in(context.invocation_metadata(), HEADER))
        calls.streams.add(opened)
        try:
            await stream.run()
        finally:
            calls.streams.discard(opened)
        if opened.refusal is not None:
            await abort(context, opened.refusal)
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


def header_in(metadata: Any, name: str) -> str | None:
    """A header that came once; None where it did not, or came twice, which says nothing for sure."""
    found: list[str] = [value for key, value in metadata or () if key == name]
    return found[0] if len(found) == 1 else None


def status_of(error: RequestError) -> grpc.StatusCode:
    """The status that says what `error` does."""
    return _STATUSES[type(error)]


def said(error: RequestError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """The status, text and trailing metadata that say what `error` does."""
    status = status_of(error)
    details: tuple[tuple[str, str | bytes], ...] = ()
    if isinstance(error, OverloadedError):
        rich = status_details.with_retry_info(status.value[0], str(error), error.retry_after)
        details = ((status_details.KEY, rich),)
    # its frames hold the request, for as long as someone holds the error
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return status, str(error), details


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: RequestError) -> NoReturn:
    """End a call with the status that says what `error` does."""
    await context.abort(*said(error))
