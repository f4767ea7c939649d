"""The server as a process: what starts in which order, and what stops in which."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from grpc_server.control import ExplicitModels, FixedModels, ModelControl
from grpc_server.endpoint import Endpoint, endpoints
from grpc_server.execution.executor import Executor
from grpc_server.following import Following
from grpc_server.handlers import InferenceHandlers
from grpc_server.health import SERVER, HealthService
from grpc_server.metrics import MetricsServer, ModelCollector
from grpc_server.models import Models
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
    registry = open_registry(settings)
    following = Following(registry, settings, settings.references())
    models = Models(following.models)
    with _metrics(models, settings) as metrics_port:
        server = _Server.around(models, settings, _control(models, following, settings))
        async with _listening(server, settings) as (port, http_port):
            log.info(
                "listening",
                host=settings.server_host,
                port=port,
                http_port=http_port,
                metrics_port=metrics_port,
                store=registry.store.url,
                models=[f"{model.name}:{model.follower.channel}" for model in models],
            )
            following.start(server.report_health)
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

    @classmethod
    def around(cls, models: Models, settings: ServerSettings, control: ModelControl) -> _Server:
        executor = Executor(settings.execution())
        largest = settings.server_max_message_mib * MIB
        handlers, rpcs = endpoints(models, control, executor=executor, max_message_bytes=largest)
        health = HealthService()
        transport = GrpcTransport(rpcs, health, max_message_bytes=largest)
        return cls(models, handlers, health, transport, executor, _mirror(rpcs, settings))

    def report_health(self) -> None:
        serving = {model.name: model.current is not None for model in self.models}
        self.health.report({**serving, SERVER: self.models.ready})

    async def drain(self, seconds: float) -> None:
        log.info("draining", seconds=seconds)
        self.handlers.drain()
        self.health.drain()
        deadline = time.monotonic() + seconds
        await asyncio.sleep(min(LINGER, seconds))
        # gRPC refuses what it has received and not handed over yet, so wait for a quiet moment
        await self.transport.quiet(min(LONGEST_LINGER, deadline - time.monotonic()))
        left = max(0.0, deadline - time.monotonic())
        mirror = self.mirror.stop() if self.mirror is not None else asyncio.sleep(0)
        await asyncio.gather(self.transport.stop(left), mirror)
        self.executor.close()


def _mirror(rpcs: list[Endpoint[Any]], settings: ServerSettings) -> HttpMirror | None:
    if not settings.server_http:
        return None
    # imported here, since whoever goes without it need not wait for it
    from grpc_server.http_mirror.server import HttpMirror as Mirror

    return Mirror(
        rpcs,
        max_message_bytes=settings.server_max_message_mib * MIB,
        drain_seconds=settings.server_drain_seconds,
    )


def _control(models: Models, following: Following, settings: ServerSettings) -> ModelControl:
    if settings.server_model_control is ControlMode.EXPLICIT:
        return ExplicitModels(models, following.follow, following.leave)
    return FixedModels()


@contextlib.asynccontextmanager
async def _listening(server: _Server, settings: ServerSettings) -> AsyncIterator[tuple[int, int | None]]:
    port = await server.transport.start(settings.server_host, settings.server_port)
    try:
        http_port = None
        if server.mirror is not None:
            http_port = await server.mirror.start(settings.server_host, settings.server_http_port)
        yield port, http_port
    finally:
        await server.transport.stop(0)


@contextlib.contextmanager
def _metrics(models: Models, settings: ServerSettings) -> Iterator[int]:
    server = MetricsServer(
        [ModelCollector(models)], host=settings.server_host, port=settings.server_metrics_port
    )
    try:
        yield server.port
    finally:
        server.stop()


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
