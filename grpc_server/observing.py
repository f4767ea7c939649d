"""Who is told of calls, on gRPC: around a behaviour, and put there only where someone wants to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from ferryline.grpc_server.behaviours import Context, Stream, Unary, header_in
from ferryline.grpc_server.observation.heading import Heading, heading_of
from ferryline.grpc_server.observation.record import GRPC, CallRecord, Observer, wanting
from ferryline.grpc_server.provenance import GENERATION_KEY, VERSION_KEY
from ferryline.grpc_server.security.guard import HEADER, Guard

TRACE_PARENT = "traceparent"
_NO_HEADING = Heading()
_NS = 1e9
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Observing:
    """Tells observers how calls ended.

    Args:
        observers: who is told.
        guard: knows whose a token is; None where there are no tokens.
    """

    def __init__(self, observers: Sequence[Observer], guard: Guard | None) -> None:
        self._observers = observers
        self._guard = guard

    def unary(self, rpc: str, behaviour: Unary) -> Unary:
        """`behaviour`, and the observers told of it."""

        async def serve(data: bytes, context: Context) -> bytes:
            began, clock = time.time_ns(), time.perf_counter_ns()
            try:
                reply = await behaviour(data, context)
            except BaseException:
                self._tell(rpc, began, clock, context, lambda: heading_of(rpc, data), failed=True)
                raise
            self._tell(rpc, began, clock, context, lambda: heading_of(rpc, data), failed=False)
            return reply

        return serve

    def stream(self, rpc: str, behaviour: Stream) -> Stream:
        """Likewise, once for a whole stream."""

        async def serve(requests: Any, context: Context) -> None:
            began, clock = time.time_ns(), time.perf_counter_ns()
            try:
                await behaviour(requests, context)
            except BaseException:
                self._tell(rpc, began, clock, context, Heading, failed=True)
                raise
            self._tell(rpc, began, clock, context, Heading, failed=False)

        return serve

    def _tell(
        self,
        rpc: str,
        began: int,
        clock: int,
        context: Context,
        heading: Callable[[], Heading],
        *,
        failed: bool,
    ) -> None:
        told = wanting(self._observers, failed=failed)
        if not told:
            return
        said, trailing, headers = heading(), context.trailing_metadata(), context.invocation_metadata()
        record = CallRecord(
            transport=GRPC,
            rpc=rpc,
            status=_status(context) if failed else "OK",
            failed=failed,
            began_ns=began,
            seconds=(time.perf_counter_ns() - clock) / _NS,
            peer=self._peer(headers, context),
            model=said.model,
            version=header_in(trailing, VERSION_KEY) or said.version,
            generation=header_in(trailing, GENERATION_KEY) or "",
            request_id=said.request_id,
            traceparent=header_in(headers, TRACE_PARENT),
        )
        for observer in told:
            observer.ended(record)

    def _peer(self, headers: Any, context: Context) -> str:
        named = self._guard.caller(header_in(headers, HEADER)) if self._guard is not None else None
        if named is not None:
            return named
        for name in context.auth_context().get("x509_common_name", ()):
            return name.decode("utf-8", "replace")
        return context.peer()


def _status(context: Context) -> str:
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    # no status is set where the caller went away
    return _CODES.get(code, "UNKNOWN") if code else "CANCELLED"
