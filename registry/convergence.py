"""Whether every live consumer of a channel serves an entry, who does not, and how far behind each is.

A number names a generation of one log. Where a log was cut and went on, or was restored from a backup, the
same number may name another version; so what a consumer reports is compared by digests with what the log has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ferryline.registry.catalogue import Registry
from ferryline.registry.clocks import elapsed
from ferryline.registry.consumers import is_stale
from ferryline.registry.documents import ChannelEntry, Heartbeat, ServedModelReport
from ferryline.registry.errors import (
    StoreUnreachableError,
    UntrustedAnswerError,
    UsageError,
    WaitTimeoutError,
)

LOOK_INTERVAL = 0.2
"""Seconds between two looks at the heartbeats while waiting."""

Log = Mapping[int, ChannelEntry]
"""Entries of one log by their generations."""


def serves(report: ServedModelReport, entry: ChannelEntry) -> bool:
    """Whether a consumer that reports so serves `entry`, and not what has its number in another log."""
    if (report.generation, report.version, report.digest) != (
        entry.generation,
        entry.version,
        entry.blob_digest,
    ):
        return False
    if report.entry_digest is not None:
        return report.entry_digest == entry.digest
    # a consumer of an earlier release: what it does tell must fit
    return report.canary_version == (entry.canary.version if entry.canary else None)


@dataclass(frozen=True, slots=True)
class Service:
    """One consumer's service of one channel."""

    heartbeat: Heartbeat
    report: ServedModelReport
    stale: bool

    def reached(self, log: Log) -> bool:
        """Whether it serves one of the entries of `log`."""
        entry = log.get(self.report.generation or 0)
        return entry is not None and serves(self.report, entry)

    @property
    def serves(self) -> str:
        """What it serves, for a person: the version, and the canary beside it."""
        report = self.report
        if report.version is None:
            return "nothing yet"
        if report.canary_version is None or report.canary_percent is None:
            return f"{report.model}@{report.version}"
        return f"{report.model}@{report.version} + {report.canary_version} for {report.canary_percent:g} %"

    def refused(self, log: Log) -> bool:
        """Whether it refused one of the entries of `log` and serves none, so that no waiting helps."""
        entry = log.get(self.report.refused_generation or 0)
        if entry is None or self.reached(log):
            return False
        if self.report.refused_entry_digest is not None:
            return self.report.refused_entry_digest == entry.digest
        canary = entry.canary.blob_digest if entry.canary else None
        # an earlier release told the digest of the file that it refused, or none
        return self.report.refused_digest in {None, entry.blob_digest, canary}


def services(heartbeats: Iterable[Heartbeat], now: datetime) -> list[Service]:
    """Who serves what, a line per consumer and channel."""
    return [
        Service(heartbeat, report, is_stale(heartbeat, now))
        for heartbeat in heartbeats
        for report in heartbeat.models
    ]


@dataclass(frozen=True, slots=True)
class Convergence:
    """How the consumers of a channel stand to one of its entries.

    `refusing` are those of the late ones that will stay late, because they refused it.
    """

    entry: ChannelEntry
    serving: tuple[Service, ...]
    late: tuple[Service, ...]
    silent: tuple[Service, ...]
    refusing: tuple[Service, ...] = ()
    unreadable: int = 0
    """Heartbeats that cannot be read, so that nobody knows whether their consumers serve it."""

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


def convergence(
    found: Iterable[Service],
    entry: ChannelEntry,
    newer: Iterable[ChannelEntry] = (),
    *,
    unreadable: int = 0,
) -> Convergence:
    """Sort the consumers of the entry's channel by whether they serve it, or one of `newer`.

    Args:
        found: who serves what.
        entry: the entry that is asked about.
        newer: the entries that follow from it in the log, as far as they are known.
        unreadable: how many heartbeats could not be read.
    """
    log = {each.generation: each for each in (entry, *newer)}
    followers = _followers(found, entry)
    behind = [service for service in followers if not service.reached(log)]
    late = tuple(service for service in behind if not service.stale)
    return Convergence(
        entry,
        serving=tuple(s for s in followers if not s.stale and s.reached(log)),
        late=late,
        silent=tuple(service for service in behind if service.stale),
        refusing=tuple(service for service in late if service.refused(log)),
        unreadable=unreadable,
    )


def _followers(found: Iterable[Service], entry: ChannelEntry) -> list[Service]:
    place = (entry.model, entry.channel)
    return [service for service in found if (service.report.model, service.report.channel) == place]


def wait_until_served(
    registry: Registry,
    entry: ChannelEntry,
    *,
    seconds: float,
    on_look: Callable[[Convergence], None] = lambda _: None,
    clock: Callable[[], float] = elapsed,
    pause: Callable[[float], None] = time.sleep,
) -> Convergence:
    """Return when every live consumer of the channel reports that it serves the entry, or a later one.

    What they serve is known by its digests: a number alone may be one of a log that was cut since. Who is
    live is told by the store's time alone: by a clock that is ahead, every consumer would seem gone, and a
    rollback would seem to have worked everywhere.

    Args:
        registry: where the heartbeats lie.
        entry: what was written just now.
        seconds: how long to wait.
        on_look: told how the consumers stand, at every look.
        clock: seconds that only grow, a suspend of the machine included.
        pause: waits for so many seconds.

    Raises:
        WaitTimeoutError: `seconds` passed before; a consumer refused the generation, which no waiting mends;
            or nobody reports it and all who did before fell silent. The laggards are named.
        UntrustedAnswerError: what follows the entry in the log cannot be read, or does not follow from it.
    """
    channel = registry.channel(entry.model, entry.channel)
    newer: list[ChannelEntry] = []
    began = clock()
    deadline = began + seconds
    written_at: datetime | None = None
    while True:
        try:
            if written_at is None:
                written_at = channel.written_at(entry)
            now = written_at + timedelta(seconds=clock() - began)
            faults: list[str] = []
            found = services(registry.consumers.all(faults.append), now)
            newest = newer[-1] if newer else entry
            if _names_beyond(found, newest):
                newer += channel.newer_than(newest)
            standing = convergence(found, entry, newer, unreadable=len(faults))
        except StoreUnreachableError:
            if clock() >= deadline:
                raise
        else:
            on_look(standing)
            if not standing.late:
                return _require_witness(standing)
            if standing.refusing:
                raise WaitTimeoutError(_describe(standing.refusing, (entry, *newer), "it was refused"))
            if clock() >= deadline:
                raise WaitTimeoutError(_describe(standing.late, (entry, *newer), f"after {seconds:g} s"))
        pause(LOOK_INTERVAL)


def _names_beyond(found: Iterable[Service], newest: ChannelEntry) -> bool:
    """Whether some consumer names a generation that was not read yet."""
    return any(
        max(service.report.generation or 0, service.report.refused_generation or 0) > newest.generation
        for service in _followers(found, newest)
    )


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


def _describe(late: Sequence[Service], entries: Sequence[ChannelEntry], why: str) -> str:
    """Names the consumers that do not serve the first of `entries`, nor one of those that follow it."""
    entry, log = entries[0], {each.generation: each for each in entries}
    names = "; ".join(_laggard(service, entry, log) for service in late)
    return (
        f"generation {entry.generation} of {entry.model}:{entry.channel} is written, but {why}: "
        f"{len(late)} live consumer(s) do not serve it: {names}. `ferry status` shows how they do"
    )


def _laggard(service: Service, entry: ChannelEntry, log: Log) -> str:
    report = service.report
    refusal = f", refused it by gate {report.refused_gate}" if service.refused(log) else ""
    error = f" ({report.last_error})" if report.last_error else ""
    serves = f"generation {report.generation}" if report.generation else "nothing"
    if report.digest is None and report.generation:
        serves += " and does not say which file that is"
    elif (report.generation or 0) >= entry.generation:
        serves = f"version {report.version} as another generation {report.generation} than the log has"
    return f"{service.heartbeat.consumer} serves {serves}{refusal}{error}"


# --- how far behind -------------------------------------------------------------------------------


@dataclass(slots=True)
class Positions:
    """How far consumers are behind their channels.

    Entries that are asked for are read once, but for the heads, which whoever asks knows.
    """

    registry: Registry
    _entries: dict[tuple[str, str, int], ChannelEntry] = field(default_factory=dict)

    def behind(self, report: ServedModelReport, head: ChannelEntry | None) -> int | None:
        """How many generations a consumer is behind, None where its channel does not have what it serves.

        Args:
            report: what it serves.
            head: the newest entry of its channel, None where there is none.

        Raises:
            StoreError: the store does not answer.
        """
        newest = head.generation if head is not None else 0
        if report.generation is None:
            return newest
        if head is None or report.generation > newest:
            return None
        entry = head if report.generation == newest else self._entry(report, report.generation)
        return newest - report.generation if entry is not None and serves(report, entry) else None

    def _entry(self, report: ServedModelReport, generation: int) -> ChannelEntry | None:
        place = (report.model, report.channel, generation)
        if place not in self._entries:
            try:
                self._entries[place] = self.registry.channel(report.model, report.channel).get(generation)
            except (UntrustedAnswerError, UsageError):  # it is not there, or not to be read just now
                return None
        return self._entries[place]
