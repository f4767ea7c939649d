"""The counters of a version as a row of numbers, which is how they travel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.workers.messages import Counts

Row = tuple[int, ...]

FIELDS = tuple(each.name for each in fields(VersionCounters))


def row_of(counters: VersionCounters) -> Row:
    """The counters in the order of `FIELDS`."""
    return tuple(getattr(counters, name) for name in FIELDS)


def counters_of(row: Iterable[int]) -> VersionCounters:
    """The counters out of a row."""
    return VersionCounters(**dict(zip(FIELDS, row, strict=True)))


class Changes:
    """Knows what was said last, so that only what has changed need be said."""

    def __init__(self) -> None:
        self._said: Counts = {}

    def since_last(self, counts: Counts) -> Counts:
        """The rows that are new, or not as they were the last time; `counts` has all that there are."""
        before, self._said = self._said, counts
        changed = {channel: _changed(before.get(channel, {}), rows) for channel, rows in counts.items()}
        return {channel: rows for channel, rows in changed.items() if rows}


def _changed(before: Mapping[int, Row], now: Mapping[int, Row]) -> dict[int, Row]:
    return {version: row for version, row in now.items() if before.get(version) != row}
