"""The health protocol of gRPC (grpc.health.v1): `""` is the server, every model has its own name.

The servicer that ships with grpcio-health-checking forgets all watchers of a name when one of them leaves,
and keeps them open through a drain, which then lasts as long as it may. This one does neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

SERVER = ""

_Context = grpc.aio.ServicerContext[Any, Any]


class HealthService(HealthServicer):
    """Answers and watches; to be used on one event loop."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {SERVER: False}
        self._draining = False
        self._changed = asyncio.Event()

    def report(self, serving: Mapping[str, bool]) -> None:
        """Say which names serve; ignored once the server drains."""
        if not self._draining:
            self._set(dict(serving))

    def drain(self) -> None:
        """Say for good that nothing serves, and let the watchers go once they have heard it."""
        self._draining = True
        self._set(dict.fromkeys(self._serving, False))

    def _set(self, serving: dict[str, bool]) -> None:
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: HealthCheckRequest, context: _Context
    ) -> HealthCheckResponse:
        """Whether a name serves; NOT_FOUND for one that is not known, as the protocol has it."""
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such model")
        return HealthCheckResponse(status=self._status(request.service))

    async def Watch(  # noqa: N802 - the protocol's name
        self, request: HealthCheckRequest, context: _Context
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status of a name now, and each time it changes."""
        del context
        told = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                told = status
                yield HealthCheckResponse(status=status)  # and look again: it may change while this is sent
            elif self._draining:
                return
            else:
                await changed.wait()

    def _status(self, name: str) -> Any:
        if name not in self._serving:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving[name] else HealthCheckResponse.NOT_SERVING
