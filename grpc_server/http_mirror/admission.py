"""Who may call, on HTTP, and who is told of calls: around what answers a path, where asked for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from ferryline.grpc_server.errors import RequestError
from ferryline.grpc_server.http_mirror.faults import status_of
from ferryline.grpc_server.observation.record import HTTP, CallRecord, Observer, wanting
from ferryline.grpc_server.observing import TRACE_PARENT
from ferryline.grpc_server.provenance import GENERATION_KEY, VERSION_KEY
from ferryline.grpc_server.security.guard import HEADER, Guard

Answer = Callable[[web.Request], Awaitable[web.Response]]

# aiohttp warns of plain names since 3.14, which brought keys for them
REQUEST_ID: Any = getattr(web, "RequestKey", lambda name, _: name)("request_id", str)
"""Under which a request keeps the id that its body says."""

_FAILED = 400
_NS = 1e9


class HttpAdmission:
    """Puts a guard and observers around answers.

    Args:
        guard: asks for tokens; None where there are none.
        observers: hear of calls.
    """

    def __init__(self, guard: Guard | None = None, observers: Sequence[Observer] = ()) -> None:
        self._guard = guard
        self._observers = observers

    def around(self, rpc: str, answer: Answer) -> Answer:
        """`answer` for those who may call `rpc`, and the observers told of it."""
        if self._guard is not None:
            answer = _admitted(rpc, answer, self._guard)
        return self._observed(rpc, answer) if self._observers else answer

    def knows(self, request: web.Request) -> bool:
        """Whether the caller may be told more than anyone: whoever has a token, where there are tokens."""
        return self._guard is None or self._guard.caller(_header(request)) is not None

    def _observed(self, rpc: str, answer: Answer) -> Answer:
        async def observed(request: web.Request) -> web.Response:
            began, clock = time.time_ns(), time.perf_counter_ns()
            response: web.Response | None = None
            status = "cancelled"
            try:
                response = await answer(request)
                status = str(response.status)
            except RequestError as error:
                status = str(status_of(error))
                raise
            except web.HTTPException as error:
                status = str(error.status)
                raise
            except Exception:
                status = "500"
                raise
            finally:
                self._tell(rpc, request, response, status, began, clock)
            return response

        return observed

    def _tell(
        self,
        rpc: str,
        request: web.Request,
        response: web.Response | None,
        status: str,
        began: int,
        clock: int,
    ) -> None:
        failed = response is None or response.status >= _FAILED
        told = wanting(self._observers, failed=failed)
        if not told:
            return
        headers = {} if response is None else response.headers
        record = CallRecord(
            transport=HTTP,
            rpc=rpc,
            status=status,
            failed=failed,
            began_ns=began,
            seconds=(time.perf_counter_ns() - clock) / _NS,
            peer=self._peer(request),
            model=request.match_info.get("model", ""),
            version=headers.get(VERSION_KEY) or request.match_info.get("version", ""),
            generation=headers.get(GENERATION_KEY, ""),
            request_id=request.get(REQUEST_ID, ""),
            traceparent=request.headers.get(TRACE_PARENT),
        )
        for observer in told:
            observer.ended(record)

    def _peer(self, request: web.Request) -> str:
        named = self._guard.caller(_header(request)) if self._guard is not None else None
        return named or _certificate_name(request) or request.remote or ""


def _admitted(rpc: str, answer: Answer, guard: Guard) -> Answer:
    async def admitted(request: web.Request) -> web.Response:
        guard.admit(rpc, _header(request))
        return await answer(request)

    return admitted


def _header(request: web.Request) -> str | None:
    """The one header that says who asks; two of them say nothing for sure."""
    found = request.headers.getall(HEADER, [])
    return found[0] if len(found) == 1 else None


def _certificate_name(request: web.Request) -> str | None:
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    parts = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    return next((str(value) for name, value in parts if name == "commonName"), None)
