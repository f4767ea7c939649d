"""aiohttp around the endpoints: it listens, and it stops. It knows no tensor."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ferryline.grpc_server.endpoint import Endpoint
from ferryline.grpc_server.http_mirror.admission import HttpAdmission
from ferryline.grpc_server.http_mirror.faults import in_words, reports
from ferryline.grpc_server.http_mirror.routes import Detail, Routes
from ferryline.grpc_server.observation.record import Observer
from ferryline.grpc_server.security.setup import NO_SECURITY, Security
from ferryline.grpc_server.security.tls import ssl_context
from ferryline.registry.errors import UsageError

HTTP_1 = "http/1.1"


class HttpMirror:
    """The protocol over HTTP on one address.

    Args:
        endpoints: the RPCs, by name, the same as gRPC's.
        max_message_bytes: the largest body taken, after decompression.
        drain_seconds: how long `stop` waits for requests under way, at most.
        security: who may call, over what.
        observers: who is told of calls.
        readiness: what those who may know are told about it.
        share_port: whether other processes listen on the same port.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint[Any]],
        *,
        max_message_bytes: int,
        drain_seconds: float,
        security: Security = NO_SECURITY,
        observers: Sequence[Observer] = (),
        readiness: Detail = dict,
        share_port: bool = False,
    ) -> None:
        app = web.Application(client_max_size=max_message_bytes, middlewares=[self._leaving, in_words])
        admission = HttpAdmission(security.guard, observers)
        routes = Routes({endpoint.name: endpoint for endpoint in endpoints}, admission, readiness)
        app.add_routes(routes.all())
        self._security = security
        self._share_port = share_port
        self._draining = False
        self.came = 0
        """Requests so far."""
        # a caller that is gone is worked for no more
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=reports(),
            handler_cancellation=True,
            shutdown_timeout=drain_seconds,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port; 0 lets the system choose one.

        Raises:
            UsageError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(
                self._runner, host, port, ssl_context=self._ssl_context(), reuse_port=self._share_port or None
            ).start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"cannot listen on {host}:{port} for HTTP: {error.strerror}; "
                "choose another with --http-port or --host, or go without it with --no-http"
            ) from error
        return int(self._runner.addresses[0][1])

    def drain(self) -> None:
        """Close each connection after its next answer, so that callers turn to another server."""
        self._draining = True

    async def stop(self, grace: float) -> None:
        """Take no more requests, and wait up to `grace` seconds for those that are under way."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._runner.cleanup(), grace)

    def _ssl_context(self) -> ssl.SSLContext | None:
        certificates = self._security.certificates
        return None if certificates is None else ssl_context(lambda: certificates.value, HTTP_1)

    @web.middleware
    async def _leaving(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.came += 1
        response = await handler(request)
        if self._draining:
            response.force_close()
        return response
