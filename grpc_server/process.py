"""The server as a process: what starts in which order, and what stops in which."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial

import structlog

from grpc_server.endpoint import endpoints
from grpc_server.handlers import InferenceHandlers
from grpc_server.health import SERVER, HealthService
from grpc_server.metrics import MetricsServer, ModelCollector
from grpc_server.models import FollowedModel, Models, SwapListener
from grpc_server.settings import MIB, ServerSettings
from grpc_server.transport import GrpcTransport
from model_runtime.follower import Follower, FollowerSettings
from model_runtime.heartbeat import HeartbeatReporter
from model_runtime.hint_watch import FULL_READ_INTERVAL, HintWatch
from model_runtime.identity import consumer_name
from registry.catalogue import Registry
from registry.opening import open_registry

ROLE = "grpc"
MOST_DIRECT = 4
"""Up to so many models are followed by a read of each channel; more are woken by the registry's hint."""
LINGER = 0.5
"""Seconds between saying NOT_SERVING and taking no more requests, so that callers can turn away first."""
LONGEST_LINGER = 5.0
"""Seconds that callers who do not turn away are still answered."""

STOP_FOLLOWER = 2.0

log = structlog.get_logger(__name__)


async def serve(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        UsageError: a setting is wrong or an address cannot be listened on.
    """
    registry = open_registry(settings)
    named = list(_named(settings))
    watched = len(named) > MOST_DIRECT
    models = Models([_followed(registry, settings, *each, watched=watched) for each in named])
    with _metrics(models, settings) as metrics_port:
        server = _Server.around(models, settings)
        port = await server.transport.start(settings.server_host, settings.server_port)
        log.info(
            "listening",
            host=settings.server_host,
            port=port,
            metrics_port=metrics_port,
            store=registry.store.url,
            models=[f"{model.name}:{model.follower.channel}" for model in models],
        )
        followers = [model.follower for model in models]
        interval = settings.server_poll_seconds
        watch = HintWatch(registry.store, followers, interval=interval) if watched else None
        async with _following(registry, models, server, watch):
            await _signal()
            await server.drain(settings.server_drain_seconds)
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Server:
    models: Models
    handlers: InferenceHandlers
    health: HealthService
    transport: GrpcTransport

    @classmethod
    def around(cls, models: Models, settings: ServerSettings) -> _Server:
        handlers, rpcs = endpoints(models)
        health = HealthService()
        transport = GrpcTransport(rpcs, health, max_message_bytes=settings.server_max_message_mib * MIB)
        return cls(models, handlers, health, transport)

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
        await self.transport.stop(max(0.0, deadline - time.monotonic()))


def _named(settings: ServerSettings) -> Iterator[tuple[str, str]]:
    for reference in settings.references():
        yield reference.model, reference.channel_or_default


def _followed(
    registry: Registry, settings: ServerSettings, model: str, channel: str, *, watched: bool
) -> FollowedModel:
    interval = FULL_READ_INTERVAL if watched else settings.server_poll_seconds
    follower = Follower(
        registry,
        model,
        channel,
        cache=settings.cache,
        settings=FollowerSettings(poll_interval=interval),
        consumer=consumer_name(ROLE),
    )
    return FollowedModel(follower)


@contextlib.contextmanager
def _metrics(models: Models, settings: ServerSettings) -> Iterator[int]:
    server = MetricsServer(
        [ModelCollector(models)], host=settings.server_host, port=settings.server_metrics_port
    )
    try:
        yield server.port
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def _following(
    registry: Registry, models: Models, server: _Server, watch: HintWatch | None
) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    listener = SwapListener(partial(loop.call_soon_threadsafe, server.report_health))
    followers = [model.follower for model in models]
    for follower in followers:
        follower.observe(listener)
    reporter = HeartbeatReporter(registry, consumer=consumer_name(ROLE), role=ROLE, followers=followers)
    server.report_health()
    for follower in followers:
        follower.start()
    reporter.start()
    if watch is not None:
        watch.start()
    try:
        yield
    finally:
        if watch is not None:
            await asyncio.to_thread(watch.stop)
        stops = [asyncio.to_thread(follower.stop, STOP_FOLLOWER) for follower in followers]
        await asyncio.gather(*stops, asyncio.to_thread(reporter.stop))


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
