"""Who may call, on gRPC: before a call is handed to what answers it, and again while a stream is open.

Put there only where tokens are set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import grpc

from ferryline.grpc_server import streaming
from ferryline.grpc_server.behaviours import Context, OpenStream, abort, header_in, status_of
from ferryline.grpc_server.errors import RequestError
from ferryline.grpc_server.observation.record import GRPC, CallRecord, Observer, wanting
from ferryline.grpc_server.security.guard import HEADER, Guard

RECHECK_SECONDS = 0.5
"""Between two looks at the tokens of open streams: some are taken back, others end."""


class Admission(grpc.GenericRpcHandler):
    """Finds what answers a call, for those who may make it.

    Args:
        handlers: those of all services.
        guard: asks for tokens.
        observers: hear of calls that are refused.
    """

    def __init__(
        self, handlers: Iterable[grpc.GenericRpcHandler], guard: Guard, observers: Sequence[Observer] = ()
    ) -> None:
        self._handlers = tuple(handlers)
        self._guard = guard
        self._observers = observers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """What answers the call, be it only to refuse it; None for an RPC that nobody knows."""
        for each in self._handlers:  # inference first, and no generator: every call comes here
            handler = each.service(handler_call_details)
            if handler is not None:
                return self._admitted(handler, handler_call_details)
        return None

    def _admitted(self, handler: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        rpc = handler_call_details.method.rpartition("/")[2]
        try:
            self._guard.admit(rpc, header_in(handler_call_details.invocation_metadata, HEADER))
        except RequestError as error:
            return self._refusal(rpc, error)
        return handler

    def _refusal(self, rpc: str, error: RequestError) -> Any:
        async def refuse(_requests: Any, context: Context) -> None:
            for observer in wanting(self._observers, failed=True):
                observer.ended(_refused(rpc, status_of(error).name, context.peer()))
            await abort(context, error)

        # a stream does not wait for messages that the caller may never send
        return grpc.stream_stream_rpc_method_handler(refuse)


async def recheck_regularly(guard: Guard, streams: Collection[OpenStream]) -> None:
    """End the streams whose callers may call no more, until cancelled."""
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        recheck(guard, streams)


def recheck(guard: Guard, streams: Iterable[OpenStream]) -> None:
    """Refuse those that would not be let in now."""
    for each in [stream for stream in streams if stream.refusal is None]:
        try:
            guard.admit(streaming.NAME, each.header)
        except RequestError as error:
            each.refuse(error)


def _refused(rpc: str, status: str, peer: str) -> CallRecord:
    return CallRecord(GRPC, rpc, status, failed=True, began_ns=time.time_ns(), seconds=0.0, peer=peer)


class Collector:
    """Takes the handlers that generated code adds to a server, to be put behind an admission."""

    def __init__(self) -> None:
        self.handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """As a server's."""
        self.handlers.extend(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """As a server's of grpc.aio, which needs none either."""
