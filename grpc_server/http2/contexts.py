"""Calls as the servicers written for grpc.aio know them, and the handlers of grpcio around them.

A handler is found as grpc.aio finds it, among generic handlers by the call's method, so health, reflection,
streams and what stands before them (admission, observers) are written as for grpc.aio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError

from ferryline.grpc_server.errors import InvalidRequestError, RequestError, TooLargeError
from ferryline.grpc_server.http2.calls import TaskCall, answer_too_large
from ferryline.grpc_server.http2.metadata import Pairs

log = structlog.get_logger(__name__)

StatusOf = Callable[[RequestError], grpc.StatusCode]


class CallDetails(grpc.HandlerCallDetails):
    """What a generic handler is asked with."""

    def __init__(self, method: str, metadata: Pairs) -> None:
        self.method = method
        self.invocation_metadata = metadata


class _AbortedError(Exception):
    """The servicer has ended the call; its status is in the context."""


class CallContext:
    """The part of `grpc.aio.ServicerContext` that servicers here use."""

    def __init__(self, call: TaskCall) -> None:
        self._call = call
        self._metadata = call.metadata
        self._trailing: Pairs = ()
        self._code: grpc.StatusCode | None = None
        self._details = ""

    def invocation_metadata(self) -> Pairs:
        """What the caller sent along."""
        return self._metadata

    def peer(self) -> str:
        """Who calls, as gRPC writes addresses."""
        return self._call.link.peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Who calls, by the certificate."""
        names = tuple(self._call.link.common_names)
        return {"x509_common_name": names} if names else {}

    def time_remaining(self) -> float | None:
        """Seconds until the caller stops waiting; None for never."""
        return self._call.seconds_left()

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """What goes out with the status."""
        self._trailing = tuple(metadata)

    def trailing_metadata(self) -> Pairs:
        """The same, to be read."""
        return self._trailing

    def code(self) -> grpc.StatusCode | None:
        """The status, where one is set."""
        return self._code

    def details(self) -> str:
        """Its text."""
        return self._details

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF`."""
        try:
            message = await self._call.read()
        except TooLargeError as error:
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except InvalidRequestError as error:
            await self.abort(grpc.StatusCode.INTERNAL, str(error))
        return grpc.aio.EOF if message is None else message

    async def write(self, message: bytes) -> None:
        """Send an answer; return when the next may be sent."""
        if len(message) > self._call.most:
            error = answer_too_large(message, self._call.most)
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        await self._call.write(message)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with an error."""
        self._code, self._details = code, details
        self._trailing = (*self._trailing, *trailing_metadata)
        raise _AbortedError


def find_handler(handlers: Iterable[grpc.GenericRpcHandler], details: CallDetails) -> Any:
    """What serves the call; None for a method that nobody knows."""
    for each in handlers:
        handler = each.service(details)
        if handler is not None:
            return handler
    return None


async def serve_call(call: TaskCall, handler: Any) -> None:
    """Serve a call by a handler of grpcio whose functions are coroutines or asynchronous generators."""
    context = CallContext(call)
    try:
        await _run(context, handler)
    except _AbortedError:
        call.fail(context.code() or grpc.StatusCode.UNKNOWN, context.details(), context.trailing_metadata())
    except asyncio.CancelledError:
        call.fail(grpc.StatusCode.CANCELLED, "the call was cancelled")
        raise
    except Exception as error:
        log.exception("a call failed by the server's fault", exc_info=error)
        call.fail(grpc.StatusCode.UNKNOWN, "the server failed to answer; its log has more")
    else:
        call.succeed(context.trailing_metadata())


async def _run(context: CallContext, handler: Any) -> None:
    read = handler.request_deserializer or bytes
    written = handler.response_serializer or bytes
    if handler.request_streaming:
        request: Any = _requests(context, read)
    else:
        data = await context.read()
        if data is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this call takes a request, and none came")
        request = await _parsed(context, read, data)
    if not handler.response_streaming:
        function = handler.stream_unary if handler.request_streaming else handler.unary_unary
        await context.write(written(await function(request, context)))
        return
    function = handler.stream_stream if handler.request_streaming else handler.unary_stream
    answers = function(request, context)
    if not hasattr(answers, "__aiter__"):
        await answers
        return
    async for answer in answers:
        await context.write(written(answer))


async def _requests(context: CallContext, read: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    while (data := await context.read()) is not grpc.aio.EOF:
        yield await _parsed(context, read, data)


async def _parsed(context: CallContext, read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the bytes are no message of this method")
