"""Metrics and health over plain HTTP, on a port and on threads of their own.

Health is here too, because what probes a container has no certificate to show where callers must have one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

import orjson
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from ferryline.registry.errors import UsageError

READ_SECONDS = 30.0
"""A connection that asks nothing for so long is closed, since each holds a thread."""

Ready = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Tells whether this process is ready, and what there is to say about it; asked on any thread."""


class MetricsServer:
    """`/metrics`, `/health/live` and `/health/ready` on one address.

    Args:
        collectors: give the metrics, beside those of the process itself.
        ready: tells of readiness.
        host: the address.
        port: the port; 0 for a free one.

    Raises:
        UsageError: the address cannot be listened on.
    """

    def __init__(self, collectors: Iterable[Collector], ready: Ready, *, host: str, port: int) -> None:
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._ready = ready
        self._server: WSGIServer
        self._thread: Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port} for metrics: {error.strerror}; "
                "choose another with --metrics-port or --host"
            ) from error
        self._metrics: Any = self._server.get_app()
        self._server.set_app(self._answer)
        kind: Any = self._server.RequestHandlerClass
        self._server.RequestHandlerClass = type("Impatient", (kind,), {"timeout": READ_SECONDS})

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def stop(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1.0)

    def _answer(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/health/live":
            return _json(start_response, "200 OK", {"live": True})
        if path == "/health/ready":
            ready, detail = self._ready()
            status = "200 OK" if ready else "503 Service Unavailable"
            return _json(start_response, status, {"ready": ready, **detail})
        return self._metrics(environ, start_response)


def _json(start_response: Any, status: str, document: Mapping[str, Any]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [orjson.dumps(document)]
