"""The server as a process: what starts in which order, and what stops in which."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client.registry import Collector

from grpc_server.channels import FollowedChannel
from grpc_server.control import ExplicitModels, FixedModels, ModelControl
from grpc_server.endpoint import Endpoint, endpoints
from grpc_server.execution.executor import Executor
from grpc_server.following import Following
from grpc_server.handlers import InferenceHandlers
from grpc_server.health import SERVER, HealthService
from grpc_server.metrics import ModelCollector
from grpc_server.metrics_server import MetricsServer
from grpc_server.models import Models
from grpc_server.observation.access_log import AccessLog
from grpc_server.observation.record import Observer
from grpc_server.readiness import readiness
from grpc_server.reloading import check_regularly
from grpc_server.security.metrics import SecurityCollector
from grpc_server.security.setup import Security, security_of
from grpc_server.settings import MIB, ControlMode, ServerSettings
from grpc_server.transport import GrpcTransport
from registry.opening import open_registry

if TYPE_CHECKING:
    from grpc_server.http_mirror.server import HttpMirror

LINGER = 0.5
"""Seconds between saying NOT_SERVING and taking no more requests, so that callers can turn away first."""
LONGEST_LINGER = 5.0
"""Seconds that callers who do not turn away are still answered."""

log = structlog.get_logger(__name__)


async def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        UsageError: a setting is wrong or an address cannot be listened on.
    """
    security = security_of(settings)
    registry = open_registry(settings)
    following = Following(registry, settings, settings.references())
    models = Models(following.channels, settings.optional_models())
    models.complete = not settings.server_all
    with _observers(settings) as observers:
        control = _control(models, following, settings)
        server = _Server.around(models, settings, control, security, observers)
        async with (
            _listening(server, settings) as (port, http_port, metrics_port),
            _reloading(security, settings),
        ):
            log.info(
                "listening",
                host=settings.server_host,
                port=port,
                http_port=http_port,
                metrics_port=metrics_port,
                store=registry.store.url,
                models=[str(channel) for channel in models.channels()],
                tls=_tls(security),
                tokens=security.guard is not None,
            )
            following.start(server.report_health, server.appeared)
            try:
                await _signal()
                await server.drain(settings.server_drain_seconds)
            finally:
                await following.stop()
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Server:
    models: Models
    handlers: InferenceHandlers
    health: HealthService
    transport: GrpcTransport
    executor: Executor
    mirror: HttpMirror | None
    security: Security

    @classmethod
    def around(
        cls,
        models: Models,
        settings: ServerSettings,
        control: ModelControl,
        security: Security,
        observers: list[Observer],
    ) -> _Server:
        executor = Executor(settings.execution())
        largest = settings.server_max_message_mib * MIB
        handlers, rpcs = endpoints(models, control, executor=executor, max_message_bytes=largest)
        health = HealthService()
        transport = GrpcTransport(
            rpcs,
            health,
            max_message_bytes=largest,
            security=security,
            observers=observers,
        )
        mirror = _mirror(rpcs, models, settings, security, observers)
        return cls(models, handlers, health, transport, executor, mirror, security)

    def appeared(self, channels: Sequence[FollowedChannel]) -> None:
        for channel in channels:
            self.models.add(channel)
        self.models.complete = True

    def report_health(self) -> None:
        models = {model.name: model.current is not None for model in self.models}
        channels = {str(channel): channel.current is not None for channel in self.models.channels()}
        self.health.report({**models, **channels, SERVER: self.models.ready})

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests are welcome, and what there is to say about it."""
        return self.handlers.ready, readiness(self.models)

    async def drain(self, seconds: float) -> None:
        log.info("draining", seconds=seconds)
        began = time.monotonic()
        self.handlers.drain()
        self.health.drain()
        if self.mirror is not None:
            self.mirror.drain()
        deadline = time.monotonic() + seconds
        await asyncio.sleep(min(LINGER, seconds))
        # gRPC refuses what it has received and not handed over yet, so wait for a quiet moment
        await self.transport.quiet(min(LONGEST_LINGER, deadline - time.monotonic()))
        left = max(0.0, deadline - time.monotonic())
        mirror = self.mirror.stop(left) if self.mirror is not None else asyncio.sleep(0)
        await asyncio.gather(self.transport.stop(left), mirror)
        self.executor.close()
        log.info("drained", seconds=round(time.monotonic() - began, 3))


def _mirror(
    rpcs: list[Endpoint[Any]],
    models: Models,
    settings: ServerSettings,
    security: Security,
    observers: list[Observer],
) -> HttpMirror | None:
    if not settings.server_http:
        return None
    # imported here, since whoever goes without it need not wait for it
    from grpc_server.http_mirror.server import HttpMirror as Mirror

    return Mirror(
        rpcs,
        max_message_bytes=settings.server_max_message_mib * MIB,
        drain_seconds=settings.server_drain_seconds,
        security=security,
        observers=observers,
        readiness=lambda: readiness(models),
    )


def _control(models: Models, following: Following, settings: ServerSettings) -> ModelControl:
    if settings.server_model_control is ControlMode.EXPLICIT:
        return ExplicitModels(models, following.follow, following.leave)
    return FixedModels()


@contextlib.asynccontextmanager
async def _listening(server: _Server, settings: ServerSettings) -> AsyncIterator[tuple[int, int | None, int]]:
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
def _metrics(server: _Server, settings: ServerSettings) -> Iterator[int]:
    collectors: list[Collector] = [ModelCollector(server.models), SecurityCollector(server.security)]
    metrics = MetricsServer(
        collectors, server.ready, host=settings.metrics_host, port=settings.server_metrics_port
    )
    try:
        yield metrics.port
    finally:
        metrics.stop()


@contextlib.contextmanager
def _observers(settings: ServerSettings) -> Iterator[list[Observer]]:
    observers: list[Observer] = []
    if settings.server_access_log:
        observers.append(AccessLog(settings.server_access_log))
    if not settings.server_traces:
        yield observers
        return
    # imported here, since it is a second of start that few ask for
    from grpc_server.observation.traces import exporting_traces

    traces = exporting_traces()
    try:
        yield [*observers, traces]
    finally:
        traces.close()


@contextlib.asynccontextmanager
async def _reloading(security: Security, settings: ServerSettings) -> AsyncIterator[None]:
    watching = asyncio.ensure_future(check_regularly(security.reloaded, settings.server_reload_seconds))
    try:
        yield
    finally:
        watching.cancel()


def _tls(security: Security) -> str:
    if security.certificates is None:
        return "off"
    return "on" if security.certificates.value.client_ca is None else "mutual"


async def _signal() -> None:
    """Wait for the first SIGTERM or SIGINT; a second one ends the process as if nothing caught it."""
    loop, received = asyncio.get_running_loop(), asyncio.Event()

    def note(number: signal.Signals) -> None:
        received.set()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
        log.info("asked to stop", signal=number.name)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, note, each)
    await received.wait()
