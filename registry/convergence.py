"""Whether every live consumer of a channel serves a generation, and who does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from registry.catalogue import Registry
from registry.consumers import is_stale
from registry.documents import ChannelEntry, Heartbeat, ServedModelReport, utc_now
from registry.errors import StoreUnreachableError, WaitTimeoutError

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


def services(heartbeats: Iterable[Heartbeat], now: datetime) -> list[Service]:
    """Who serves what, a line per consumer and channel."""
    return [
        Service(heartbeat, report, is_stale(heartbeat, now))
        for heartbeat in heartbeats
        for report in heartbeat.models
    ]


def laggards(found: Iterable[Service], entry: ChannelEntry) -> list[Service]:
    """The live consumers of the entry's channel that do not serve its generation yet."""
    return [
        service
        for service in found
        if (service.report.model, service.report.channel) == (entry.model, entry.channel)
        and not service.stale
        and not service.reached(entry.generation)
    ]


def wait_until_served(
    registry: Registry,
    entry: ChannelEntry,
    *,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Return when every live consumer of the channel reports the entry's generation or a newer one.

    Raises:
        WaitTimeoutError: `seconds` passed before; the laggards are named.
    """
    deadline = clock() + seconds
    while True:
        try:
            late = laggards(services(registry.consumers.all(), utc_now()), entry)
        except StoreUnreachableError:
            if clock() >= deadline:
                raise
        else:
            if not late:
                return
            if clock() >= deadline:
                raise WaitTimeoutError(_describe(late, entry, seconds))
        pause(LOOK_INTERVAL)


def _describe(late: list[Service], entry: ChannelEntry, seconds: float) -> str:
    names = "; ".join(
        f"{service.heartbeat.consumer} serves "
        + (f"generation {service.report.generation}" if service.report.generation else "nothing")
        + (f" ({service.report.last_error})" if service.report.last_error else "")
        for service in late
    )
    return (
        f"generation {entry.generation} of {entry.model}:{entry.channel} is written, but after {seconds:g} s "
        f"{len(late)} live consumer(s) do not serve it: {names}. `ferry status` shows how they do"
    )
