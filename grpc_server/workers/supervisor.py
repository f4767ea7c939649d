"""The supervisor: follows the registry for its workers, counts what they count, and replaces the dead."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Metric
from prometheus_client.registry import Collector

from ferryline.grpc_server.channels import FollowedChannel, Need
from ferryline.grpc_server.control import ExplicitModels, FixedModels, ModelControl
from ferryline.grpc_server.following import Following
from ferryline.grpc_server.metrics import ModelCollector
from ferryline.grpc_server.metrics_server import MetricsServer
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.readiness import readiness
from ferryline.grpc_server.security.setup import security_of
from ferryline.grpc_server.settings import ControlMode, ServerSettings
from ferryline.grpc_server.signals import asked_to_stop
from ferryline.grpc_server.workers.counting import Tally, WorkerMetrics, WorkersCollector
from ferryline.grpc_server.workers.crew import COUNT_SECONDS, Crew, Member, first_of
from ferryline.grpc_server.workers.leading import CrewLoader, Lead, LeadChannel
from ferryline.grpc_server.workers.messages import Begin, Complete, Count, Counted, Counts, ToSupervisor
from ferryline.grpc_server.workers.petitions import Petitions
from ferryline.grpc_server.workers.ports import reserved
from ferryline.grpc_server.workers.watching import watch
from ferryline.model_runtime.follower import Follower
from ferryline.registry.catalogue import Registry
from ferryline.registry.errors import UsageError
from ferryline.registry.opening import open_registry

COUNT_INTERVAL = 1.0
"""Seconds between two counts that nobody asked for; what a worker that dies had counted since is lost."""
TRIAL_INTERVAL = 0.25
"""The same while versions may be on trial: their trials are judged by the counts."""

_OWN = {"signing_key", "signing_passphrase", "trusted_keys"}
"""What workers need not know of the settings, since the supervisor alone asks the registry."""

log = structlog.get_logger(__name__)


async def supervise(settings: ServerSettings) -> None:
    """Have workers serve until SIGTERM or SIGINT, then let them drain.

    Raises:
        UsageError: a setting is wrong, or an address cannot be listened on.
        FerryError: workers die again and again.
    """
    _require_possible(settings)
    security = security_of(settings)  # what is wrong with it is told here, once
    registry = open_registry(settings)
    with _ports(settings) as ports:
        supervisor = _Supervisor(settings, registry, ports)
        facts = {
            "workers": settings.server_workers,
            "store": registry.store.url,
            "models": [str(channel) for channel in supervisor.models.channels()],
            "tls": security.tls,
            "tokens": security.guard is not None,
        }
        with _metrics(supervisor, settings) as metrics_port:
            await supervisor.run(facts | {"metrics_port": metrics_port})
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Ports:
    grpc: int
    http: int | None


class _Supervisor:
    """What leads the workers; to be used on one event loop, but for `ready` and `collectors`."""

    def __init__(self, settings: ServerSettings, registry: Registry, ports: _Ports) -> None:
        self._settings = settings
        self._ports = ports
        self._draining = False
        self.crew = Crew(settings.server_workers, self._begin, self)
        self._lead = Lead(self.crew, asyncio.get_running_loop())
        self._following = Following(
            registry,
            settings,
            settings.references(),
            [policy.reference for policy in settings.shadows()],
            loader=CrewLoader(self._lead),
            channel_of=self._channel,
        )
        self.models = Models(self._following.channels, settings.optional_models())
        self.models.complete = not settings.server_all
        self._tally = Tally()
        self._metrics = WorkerMetrics(self.crew, self._tally)
        self._petitions = Petitions(self.crew, self._control(), self._counts)

    async def run(self, facts: dict[str, Any]) -> None:
        """Serve until a signal, then drain."""
        self.crew.start()
        self._following.start(lambda: None, self._appeared)
        telling = asyncio.ensure_future(self._tell_of_start(facts))
        try:
            await first_of(asked_to_stop(), self.crew.failed(), watch(self.crew, self._interval()))
        finally:
            telling.cancel()
            await self._drain()
            await self._following.stop()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests are welcome, and what there is to say about it; on any thread."""
        listening = self.crew.listening
        ready = self.models.ready and listening > 0 and not self._draining
        return ready, {
            **readiness(self.models),
            "workers": {"wanted": self.crew.size, "listening": listening},
        }

    def collectors(self) -> list[Collector]:
        """What is measured; collected on any thread."""
        return [
            WorkersCollector(lambda: self._lead.wait_for(self._measured(), COUNT_SECONDS * 2)),
            ModelCollector(self.models),
        ]

    # --- what workers say ---------------------------------------------------------------------------

    def counted(self, worker: Member, message: Counted) -> None:
        """See `Ears`."""
        self._tally.told(worker.number, message, self._counted_channels())

    def requested(self, worker: Member, message: ToSupervisor) -> None:
        """See `Ears`."""
        self._petitions.hear(worker, message)

    def gone(self, worker: Member) -> None:
        """See `Ears`."""
        self._tally.gone(worker.number, self._counted_channels())
        self._petitions.gone(worker)

    # --- parts --------------------------------------------------------------------------------------

    def _counted_channels(self) -> dict[str, FollowedChannel]:
        return {str(channel): channel for channel in (*self._following.aside, *self.models.channels())}

    def _begin(self, slot: int) -> Begin:
        return Begin(
            worker=slot,
            settings=self._settings.model_dump(mode="json", exclude=_OWN),
            port=self._ports.grpc,
            http_port=self._ports.http,
        )

    def _channel(self, follower: Follower, need: Need) -> FollowedChannel:
        return LeadChannel(self._lead, follower, need)

    def _control(self) -> ModelControl:
        if self._settings.server_model_control is ControlMode.EXPLICIT:
            return ExplicitModels(self.models, self._following.follow, self._following.leave)
        return FixedModels()

    def _appeared(self, channels: Sequence[FollowedChannel]) -> None:
        for channel in channels:
            self.models.add(channel)
        self.models.complete = True
        self.crew.tell(Complete())

    async def _count(self) -> None:
        await self.crew.count(Count(round=self.crew.number()))

    async def _counts(self) -> Counts:
        await self._count()
        return self._tally.counts()

    async def _measured(self) -> list[Metric]:
        await self._count()
        return self._metrics.now()

    def _interval(self) -> float:
        return COUNT_INTERVAL if self._settings.trials() is None else TRIAL_INTERVAL

    async def _tell_of_start(self, facts: dict[str, Any]) -> None:
        await self.crew.started.wait()
        host = self._settings.server_host
        log.info("listening", host=host, port=self._ports.grpc, http_port=self._ports.http, **facts)

    async def _drain(self) -> None:
        self._draining = True
        seconds = self._settings.server_drain_seconds
        log.info("draining", seconds=seconds)
        began = time.monotonic()
        await self.crew.stop(seconds)
        log.info("drained", seconds=round(time.monotonic() - began, 3))


def _require_possible(settings: ServerSettings) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise UsageError("processes cannot share a port on this system: leave out --workers")
    if settings.server_model_control is ControlMode.EXPLICIT and settings.shadows():
        raise UsageError(
            "workers cannot have both --shadow and --model-control explicit: leave out one of the three"
        )


@contextlib.contextmanager
def _ports(settings: ServerSettings) -> Iterator[_Ports]:
    host = settings.server_host
    with contextlib.ExitStack() as held:
        port = held.enter_context(reserved(host, settings.server_port, "--port or --host"))
        if not settings.server_http:
            yield _Ports(port, None)
            return
        flags = "--http-port or --host, or go without it with --no-http"
        yield _Ports(port, held.enter_context(reserved(host, settings.server_http_port, flags)))


@contextlib.contextmanager
def _metrics(supervisor: _Supervisor, settings: ServerSettings) -> Iterator[int]:
    host, port = settings.metrics_host, settings.server_metrics_port
    metrics = MetricsServer(supervisor.collectors(), supervisor.ready, host=host, port=port)
    try:
        yield metrics.port
    finally:
        # stopping waits for scrapes, and they wait for the event loop
        threading.Thread(target=metrics.stop, daemon=True).start()
