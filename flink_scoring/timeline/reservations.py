"""How far earlier attempts may have come, put together, and which of them need no longer say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ferryline.flink_scoring.timeline.documents import Reserved

Logs = Mapping[str, Reserved]


class Said(NamedTuple):
    """What one attempt wrote.

    Attributes:
        key: where.
        may_go: whether it is so old that its attempt is surely no more.
        logs: how far it may have come, by log.
    """

    key: str
    may_go: bool
    logs: Logs


def furthest(every: Iterable[Logs]) -> dict[str, Reserved]:
    """For each log the furthest that any attempt may have come."""
    merged: dict[str, Reserved] = {}
    for logs in every:
        for name, reserved in logs.items():
            merged[name] = _further(merged.get(name), reserved)
    return merged


def dispensable(youngest_first: Iterable[Said]) -> Iterator[str]:
    """The keys of those that may be removed: what stays says as much of each of their logs.

    A partition without records since the restart is nobody's yet, so its log is in none that is younger; who
    begins it must still find how far it may have been scored.
    """
    kept: dict[str, Reserved] = {}
    for said in youngest_first:
        if said.may_go and all(_says(kept.get(name), reserved) for name, reserved in said.logs.items()):
            yield said.key
        else:
            kept = furthest([kept, said.logs])


def _says(kept: Reserved | None, reserved: Reserved) -> bool:
    return kept is not None and kept.until >= reserved.until


def _further(one: Reserved | None, other: Reserved) -> Reserved:
    if one is None:
        return other
    return Reserved(until=max(one.until, other.until), newest=max(one.newest, other.newest))
