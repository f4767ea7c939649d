"""What garbage collection keeps and why, what it marks and what it deletes: the decision, without IO.

- A file is kept while anything that is kept refers to its digest; whose it is, is no matter.
- What refers: the newest entries of every channel and what rollbacks lead to, as deep as the rollback depth
  (the head, what is held and a running canary are among them); every consumer that was heard of within a
  day; the last versions of every model.
- What nothing refers to is marked first, and deleted by a later run after the grace period.
- Ages are differences of the store's own times, so no clock but the store's matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from ferryline.registry.documents import ChannelEntry, Heartbeat, Manifest
from ferryline.registry.errors import UsageError

SHORTEST_GRACE = timedelta(minutes=10)
GONE_AFTER = timedelta(days=1)
"""A consumer silent for so long holds nothing back, and its heartbeat goes; so do left-over probes."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept.

    Args:
        keep_versions: of every model so many of the newest versions.
        rollback_depth: so many entries of a channel behind its head, and so many steps back.
        grace: how long a file stays marked before it goes.
        keep_refusals: so many of the newest refusals of a model,
        refusals_for: and none that is older.

    Raises:
        UsageError: a number is out of its range; a short grace could hurt a publish that is under way.
    """

    keep_versions: int = 20
    rollback_depth: int = 10
    grace: timedelta = timedelta(hours=24)
    keep_refusals: int = 1_000
    refusals_for: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        if self.keep_versions < 1 or self.rollback_depth < 0 or self.keep_refusals < 1:
            raise UsageError("keep at least one version, one refusal and a rollback depth of 0")
        if self.grace < SHORTEST_GRACE:
            raise UsageError(
                f"a grace of {self.grace.total_seconds():g} s could hurt a publish that is under way; "
                f"{SHORTEST_GRACE.total_seconds() / 60:g} minutes is the shortest"
            )


class Line(Protocol):
    """A line of a store's listing."""

    @property
    def key(self) -> str:
        """Where the object lies."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def modified_at(self) -> datetime:
        """When it was written, by the store's own clock."""
        ...


# --- what is kept ---------------------------------------------------------------------------------


class Why(StrEnum):
    """What keeps a file."""

    SERVES = "serves"
    HELD = "held"
    CANARY = "canary"
    ROLLBACK = "rollback"
    CONSUMER = "consumer"
    NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Reference:
    """That something needs the file with `digest`, and what it is."""

    digest: str
    why: Why
    what: str


def of_channel(head: ChannelEntry, others: Iterable[ChannelEntry]) -> Iterator[Reference]:
    """What a channel refers to: its head, and `others`, the entries within the rollback depth."""
    name = f"{head.model}:{head.channel}"
    yield Reference(head.blob_digest, Why.HELD if head.held else Why.SERVES, name)
    if head.canary is not None:
        yield Reference(head.canary.blob_digest, Why.CANARY, name)
    for entry in others:
        what = f"{name} generation {entry.generation}"
        yield Reference(entry.blob_digest, Why.ROLLBACK, what)
        if entry.canary is not None:
            yield Reference(entry.canary.blob_digest, Why.ROLLBACK, what)


def of_consumer(heartbeat: Heartbeat) -> Iterator[Reference]:
    """What a consumer says that it serves."""
    for report in heartbeat.models:
        for digest in (report.digest, report.canary_digest):
            if digest is not None:
                yield Reference(digest, Why.CONSUMER, heartbeat.consumer)


def of_version(manifest: Manifest) -> Reference:
    """One of a model's newest versions."""
    return Reference(manifest.blob.digest, Why.NEWEST, f"{manifest.model}@{manifest.version}")


# --- what goes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in the store: files, marks and notes of collection, each by the file's digest."""

    files: Mapping[str, Line]
    marks: Mapping[str, Line]
    collected: Mapping[str, Line]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do. All are digests of files, in order.

    `mark`: garbage that was none before; `wait`: marked, not for long enough; `collect`: marked for long
    enough; `unmark`: referred to again, or the file is gone already; `forget`: notes of collection of files
    that are there, because they were published again or the run that wrote the note was killed.
    """

    mark: tuple[str, ...] = ()
    wait: tuple[str, ...] = ()
    collect: tuple[str, ...] = ()
    unmark: tuple[str, ...] = ()
    forget: tuple[str, ...] = ()
    kept: tuple[str, ...] = field(default=())


def plan(found: Found, kept: Iterable[str], *, now: datetime, grace: timedelta) -> Plan:
    """Sort every file and mark by what is to become of it.

    Args:
        found: what a listing showed.
        kept: the digests that something refers to.
        now: the store's time.
        grace: how long a mark must have lain.
    """
    referred = set(kept)
    garbage = [digest for digest in sorted(found.files) if digest not in referred]
    due = {digest for digest, mark in found.marks.items() if now - mark.modified_at >= grace}
    collect = tuple(digest for digest in garbage if digest in due)
    return Plan(
        mark=tuple(digest for digest in garbage if digest not in found.marks),
        wait=tuple(digest for digest in garbage if digest in found.marks and digest not in due),
        collect=collect,
        unmark=tuple(
            digest for digest in sorted(found.marks) if digest in referred or digest not in found.files
        ),
        forget=tuple(
            digest for digest in sorted(found.collected) if digest in found.files and digest not in collect
        ),
        kept=tuple(digest for digest in sorted(found.files) if digest in referred),
    )


def old_refusals(ledger: Sequence[Line], retention: Retention, *, now: datetime) -> list[str]:
    """The keys of a model's refusals that go; `ledger` is in the order of their times."""
    cut = len(ledger) - retention.keep_refusals
    return [
        listed.key
        for place, listed in enumerate(ledger)
        if place < cut or now - listed.modified_at > retention.refusals_for
    ]


def gone(listing: Iterable[Line], *, now: datetime) -> list[str]:
    """The keys that nobody has written for `GONE_AFTER`."""
    return [listed.key for listed in listing if now - listed.modified_at > GONE_AFTER]


# --- what a run did -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File:
    """A file that nothing refers to; `versions` have it, none where a publish was cut off."""

    digest: str
    size: int
    versions: tuple[str, ...]
    marked_at: datetime | None = None


@dataclass(slots=True)
class Report:
    """What a run did, or would do.

    `collected` was deleted, `marked` is new garbage, `waiting` was marked by an earlier run and not for long
    enough; `spared` was garbage and is referred to again, or someone was about to.
    """

    dry_run: bool
    collected: list[File] = field(default_factory=list)
    marked: list[File] = field(default_factory=list)
    waiting: list[File] = field(default_factory=list)
    spared: int = 0
    kept_files: int = 0
    kept_bytes: int = 0
    kept_because: list[Reference] = field(default_factory=list)
    heartbeats: int = 0
    probes: int = 0
    refusals: int = 0
