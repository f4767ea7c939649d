"""Whether every live consumer of a channel serves a generation, and who does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ferryline.registry.catalogue import Registry
from ferryline.registry.consumers import is_stale
from ferryline.registry.documents import ChannelEntry, Heartbeat, ServedModelReport
from ferryline.registry.errors import StoreUnreachableError, WaitTimeoutError

LOOK_INTERVAL = 0.2
"""Seconds between two looks at the heartbeats while waiting."""


@dataclass(frozen=True, slots=True)
class Service:
    """One consumer's service of one channel."""

    heartbeat: Heartbeat
    report: ServedModelReport
    stale: bool

    def reached(self, generation: int) -> bool:
        """Whether it serves `generation` or a newer one."""
        return self.report.generation is not None and self.report.generation >= generation

    @property
    def serves(self) -> str:
        """What it serves, for a person: the version, and the canary beside it."""
        report = self.report
        if report.version is None:
            return "nothing yet"
        if report.canary_version is None or report.canary_percent is None:
            return f"{report.model}@{report.version}"
        return f"{report.model}@{report.version} + {report.canary_version} for {report.canary_percent:g} %"

    def refused(self, generation: int) -> bool:
        """Whether it refused `generation` or a newer one, so that waiting for it is in vain."""
        refused = self.report.refused_generation
        return refused is not None and refused >= generation and not self.reached(generation)


def services(heartbeats: Iterable[Heartbeat], now: datetime) -> list[Service]:
    """Who serves what, a line per consumer and channel."""
    return [
        Service(heartbeat, report, is_stale(heartbeat, now))
        for heartbeat in heartbeats
        for report in heartbeat.models
    ]


@dataclass(frozen=True, slots=True)
class Convergence:
    """How the consumers of a channel stand to one of its generations."""

    entry: ChannelEntry
    serving: tuple[Service, ...]
    late: tuple[Service, ...]
    silent: tuple[Service, ...]
    unreadable: int = 0
    """Heartbeats that cannot be read, so that nobody knows whether their consumers serve it."""

    @property
    def refusing(self) -> tuple[Service, ...]:
        """The late ones that will stay late, because they refused it."""
        return tuple(service for service in self.late if service.refused(self.entry.generation))

    def __str__(self) -> str:
        generation = f"generation {self.entry.generation} of {self.entry.model}:{self.entry.channel}"
        told = (
            f"every live consumer serves {generation} ({len(self.serving)})"
            if self.serving
            else f"{generation} is written; no live consumer follows it"
        )
        unknown = {
            "went silent before they did": len(self.silent),
            "heartbeat(s) cannot be read": self.unreadable,
        }
        doubts = [f"; {count} {what}" for what, count in unknown.items() if count]
        return told + "".join(doubts) + (", `ferry status` names them" if doubts else "")


def convergence(found: Iterable[Service], entry: ChannelEntry, *, unreadable: int = 0) -> Convergence:
    """Sort the consumers of the entry's channel by whether they serve its generation."""
    followers = [
        service
        for service in found
        if (service.report.model, service.report.channel) == (entry.model, entry.channel)
    ]
    behind = [service for service in followers if not service.reached(entry.generation)]
    return Convergence(
        entry,
        serving=tuple(s for s in followers if not s.stale and s.reached(entry.generation)),
        late=tuple(service for service in behind if not service.stale),
        silent=tuple(service for service in behind if service.stale),
        unreadable=unreadable,
    )


def wait_until_served(
    registry: Registry,
    entry: ChannelEntry,
    *,
    seconds: float,
    on_look: Callable[[Convergence], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Convergence:
    """Return when every live consumer of the channel reports the entry's generation or a newer one.

    Who is live is told by the store's time alone: by a clock that is ahead, every consumer would seem gone,
    and a rollback would seem to have worked everywhere.

    Args:
        registry: where the heartbeats lie.
        entry: what was written just now.
        seconds: how long to wait.
        on_look: told how the consumers stand, at every look.
        clock: seconds that only grow.
        pause: waits for so many seconds.

    Raises:
        WaitTimeoutError: `seconds` passed before; a consumer refused the generation, which no waiting mends;
            or nobody reports it and all who did before fell silent. The laggards are named.
    """
    began = clock()
    deadline = began + seconds
    written_at: datetime | None = None
    while True:
        try:
            if written_at is None:
                written_at = registry.channel(entry.model, entry.channel).written_at(entry)
            now = written_at + timedelta(seconds=clock() - began)
            faults: list[str] = []
            found = services(registry.consumers.all(faults.append), now)
            standing = convergence(found, entry, unreadable=len(faults))
        except StoreUnreachableError:
            if clock() >= deadline:
                raise
        else:
            on_look(standing)
            if not standing.late:
                return _require_witness(standing)
            if standing.refusing:
                raise WaitTimeoutError(_describe(standing.refusing, entry, "it was refused"))
            if clock() >= deadline:
                raise WaitTimeoutError(_describe(standing.late, entry, f"after {seconds:g} s"))
        pause(LOOK_INTERVAL)


def _require_witness(standing: Convergence) -> Convergence:
    """Where nobody reports the generation and somebody fell silent, nothing is known to have been reached."""
    if standing.serving or not standing.silent:
        return standing
    names = ", ".join(service.heartbeat.consumer for service in standing.silent)
    entry = standing.entry
    raise WaitTimeoutError(
        f"generation {entry.generation} of {entry.model}:{entry.channel} is written, and nobody reports it: "
        f"every consumer fell silent ({names}), and one that cannot reach the store may still serve what was "
        "before. `ferry status` tells since when"
    )


def _describe(late: Sequence[Service], entry: ChannelEntry, why: str) -> str:
    names = "; ".join(_laggard(service, entry.generation) for service in late)
    return (
        f"generation {entry.generation} of {entry.model}:{entry.channel} is written, but {why}: "
        f"{len(late)} live consumer(s) do not serve it: {names}. `ferry status` shows how they do"
    )


def _laggard(service: Service, generation: int) -> str:
    report = service.report
    refusal = f", refused it by gate {report.refused_gate}" if service.refused(generation) else ""
    error = f" ({report.last_error})" if report.last_error else ""
    serves = f"generation {report.generation}" if report.generation else "nothing"
    return f"{service.heartbeat.consumer} serves {serves}{refusal}{error}"
