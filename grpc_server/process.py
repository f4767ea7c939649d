"""The server as a process: what starts in which order, and what stops in which."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client.registry import Collector

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.control import ExplicitModels, FixedModels, ModelControl
from ferryline.grpc_server.endpoint import Endpoint, endpoints
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.following import Following
from ferryline.grpc_server.handlers import InferenceHandlers
from ferryline.grpc_server.health import SERVER, HealthService
from ferryline.grpc_server.metrics import ModelCollector
from ferryline.grpc_server.metrics_server import MetricsServer
from ferryline.grpc_server.model_statistics import Totals
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.observation.access_log import AccessLog
from ferryline.grpc_server.observation.record import Observer
from ferryline.grpc_server.readiness import readiness
from ferryline.grpc_server.reloading import check_regularly
from ferryline.grpc_server.security.metrics import SecurityCollector
from ferryline.grpc_server.security.setup import Security, security_of
from ferryline.grpc_server.settings import MIB, ControlMode, ServerSettings
from ferryline.grpc_server.shadowing.metrics import ShadowCollector
from ferryline.grpc_server.shadowing.setup import Shadows
from ferryline.grpc_server.signals import asked_to_stop
from ferryline.grpc_server.transport import GrpcTransport
from ferryline.registry.opening import open_registry

if TYPE_CHECKING:
    from ferryline.grpc_server.http_mirror.server import HttpMirror

LINGER = 0.5
"""Seconds between saying NOT_SERVING and taking no more requests, so that callers can turn away first."""
LONGEST_LINGER = 5.0
"""Seconds that callers who do not turn away are still answered."""

QUIET_SECONDS = 0.25
"""Without a request for so long, they have turned away."""

LOCK_SECONDS = 0.0005
"""How long a thread may keep Python's lock while another waits for it."""

log = structlog.get_logger(__name__)


async def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        UsageError: a setting is wrong or an address cannot be listened on.
    """
    favour_requests()
    security = security_of(settings)
    registry = open_registry(settings)
    aside = [policy.reference for policy in settings.shadows()]
    following = Following(registry, settings, settings.references(), aside)
    shadows = Shadows(settings, (*following.channels, *following.aside))
    models = Models(following.channels, settings.optional_models(), shadows.by_model)
    models.complete = not settings.server_all
    with observers_of(settings) as observers:
        control = _control(models, following, settings)
        server = Server.around(models, settings, control, security, observers, shadows)
        async with (
            _listening(server, settings) as (port, http_port, metrics_port),
            reloading(security, settings),
            shadows.running(),
        ):
            log.info(
                "listening",
                host=settings.server_host,
                port=port,
                http_port=http_port,
                metrics_port=metrics_port,
                store=registry.store.url,
                models=[str(channel) for channel in models.channels()],
                shadows=[str(shadow.policy) for shadow in shadows.by_model.values()],
                tls=security.tls,
                tokens=security.guard is not None,
            )
            following.start(server.report_health, server.appeared)
            try:
                await asked_to_stop()
                await server.drain(settings.server_drain_seconds)
            finally:
                await following.stop()
    log.info("stopped")


def favour_requests() -> None:
    """Let the event loop wait less for followers: Python's own 5 ms are as long as thirty requests."""
    sys.setswitchinterval(LOCK_SECONDS)


@dataclass(frozen=True, slots=True)
class Server:
    """One process that answers: the models, and all that carries requests to them."""

    models: Models
    handlers: InferenceHandlers
    health: HealthService
    transport: GrpcTransport
    executor: Executor
    mirror: HttpMirror | None
    security: Security
    shadows: Shadows

    @classmethod
    def around(
        cls,
        models: Models,
        settings: ServerSettings,
        control: ModelControl,
        security: Security,
        observers: list[Observer],
        shadows: Shadows,
        *,
        share_port: bool = False,
        totals: Totals | None = None,
    ) -> Server:
        """A server that does not listen yet.

        Args:
            models: what is served.
            settings: how.
            control: who decides on the models.
            security: who may ask, over what.
            observers: who is told of requests.
            shadows: what runs them again.
            share_port: whether other processes listen on the same ports.
            totals: gives what all of those have counted; None where there are none.
        """
        executor = Executor(settings.execution())
        largest = settings.server_max_message_mib * MIB
        handlers, rpcs = endpoints(
            models, control, executor=executor, max_message_bytes=largest, totals=totals
        )
        health = HealthService()
        transport = GrpcTransport(
            rpcs,
            health,
            max_message_bytes=largest,
            security=security,
            observers=observers,
            share_port=share_port,
        )
        mirror = _mirror(
            rpcs, lambda: _detail(models, shadows), settings, security, observers, share_port=share_port
        )
        return cls(models, handlers, health, transport, executor, mirror, security, shadows)

    def appeared(self, channels: Sequence[FollowedChannel]) -> None:
        """Serve what was found."""
        for channel in channels:
            self.models.add(channel)
        self.models.complete = True

    def report_health(self) -> None:
        """Tell the health service what serves now."""
        models = {model.name: model.current is not None for model in self.models}
        channels = {str(channel): channel.current is not None for channel in self.models.channels()}
        self.health.report({**models, **channels, SERVER: self.models.ready})

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests are welcome, and what there is to say about it."""
        return self.handlers.ready, _detail(self.models, self.shadows)

    def collectors(self) -> list[Collector]:
        """What this process measures, beside its models and channels."""
        return [
            SecurityCollector(self.security),
            ShadowCollector(tuple(self.shadows.by_model.values())),
        ]

    async def drain(self, seconds: float) -> None:
        """Take no more requests once callers have had time to turn away, and answer what is under way."""
        log.info("draining", seconds=seconds)
        began = time.monotonic()
        self.handlers.drain()
        self.health.drain()
        if self.mirror is not None:
            self.mirror.drain()
        deadline = time.monotonic() + seconds
        await asyncio.sleep(min(LINGER, seconds))
        # gRPC refuses what it has received and not handed over yet, so wait for a quiet moment
        await until_quiet(self._came, min(LONGEST_LINGER, deadline - time.monotonic()))
        left = max(0.0, deadline - time.monotonic())
        mirror = self.mirror.stop(left) if self.mirror is not None else asyncio.sleep(0)
        await asyncio.gather(self.transport.stop(left), mirror)
        self.executor.close()
        log.info("drained", seconds=round(time.monotonic() - began, 3))

    def _came(self) -> int:
        """Requests so far, over gRPC and HTTP."""
        return self.transport.came + (0 if self.mirror is None else self.mirror.came)


async def until_quiet(came: Callable[[], int], longest: float) -> None:
    """Return as soon as no request came for a moment, or after `longest` seconds.

    Args:
        came: gives the requests so far.
        longest: seconds.
    """
    deadline = time.monotonic() + longest
    seen = -1
    while (now := came()) != seen and time.monotonic() < deadline:
        seen = now
        await asyncio.sleep(QUIET_SECONDS)


def _detail(models: Models, shadows: Shadows) -> dict[str, Any]:
    return {**readiness(models), **shadows.readiness()}


def _mirror(
    rpcs: list[Endpoint[Any]],
    detail: Callable[[], dict[str, Any]],
    settings: ServerSettings,
    security: Security,
    observers: list[Observer],
    *,
    share_port: bool,
) -> HttpMirror | None:
    if not settings.server_http:
        return None
    # imported here, since whoever goes without it need not wait for it
    from ferryline.grpc_server.http_mirror.server import HttpMirror as Mirror

    return Mirror(
        rpcs,
        max_message_bytes=settings.server_max_message_mib * MIB,
        drain_seconds=settings.server_drain_seconds,
        security=security,
        observers=observers,
        readiness=detail,
        share_port=share_port,
    )


def _control(models: Models, following: Following, settings: ServerSettings) -> ModelControl:
    if settings.server_model_control is ControlMode.EXPLICIT:
        return ExplicitModels(models, following.follow, following.leave)
    return FixedModels()


@contextlib.asynccontextmanager
async def _listening(server: Server, settings: ServerSettings) -> AsyncIterator[tuple[int, int | None, int]]:
    host, http_port = settings.server_host, None
    with _metrics(server, settings) as metrics_port:
        port = await server.transport.start(host, settings.server_port)
        try:
            if server.mirror is not None:
                http_port = await server.mirror.start(host, settings.server_http_port)
            yield port, http_port, metrics_port
        finally:
            await server.transport.stop(0)


@contextlib.contextmanager
def _metrics(server: Server, settings: ServerSettings) -> Iterator[int]:
    collectors: list[Collector] = [ModelCollector(server.models), *server.collectors()]
    metrics = MetricsServer(
        collectors, server.ready, host=settings.metrics_host, port=settings.server_metrics_port
    )
    try:
        yield metrics.port
    finally:
        metrics.stop()


@contextlib.contextmanager
def observers_of(settings: ServerSettings) -> Iterator[list[Observer]]:
    """Who is told of requests, by the settings."""
    observers: list[Observer] = []
    if settings.server_access_log:
        observers.append(AccessLog(settings.server_access_log))
    if not settings.server_traces:
        yield observers
        return
    # imported here, since it is a second of start that few ask for
    from ferryline.grpc_server.observation.traces import exporting_traces

    traces = exporting_traces()
    try:
        yield [*observers, traces]
    finally:
        traces.close()


@contextlib.asynccontextmanager
async def reloading(security: Security, settings: ServerSettings) -> AsyncIterator[None]:
    """Take certificates and tokens anew when their files change, meanwhile."""
    watching = asyncio.ensure_future(check_regularly(security.reloaded, settings.server_reload_seconds))
    try:
        yield
    finally:
        watching.cancel()
