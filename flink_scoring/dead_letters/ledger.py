"""Which letters were replayed: the rules of the ledger, and its records.

A consumer group's offset is one number per partition, and replays by reason or moment leave holes. So every
transaction writes, beside the records it sends back, one record that names the letters it took. Pure: no IO.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from ferryline.streams.errors import MalformedRecordError

Place = tuple[int, int]
"""Partition and offset in the dead-letter topic."""


@dataclass(frozen=True, slots=True)
class LedgerScope:
    """What an entry is about.

    Attributes:
        topic_id: the dead-letter topic's own id; one of the same name that was made anew has another, and
            its offsets begin again.
        destination: the topic that the records were sent to.
    """

    topic_id: str
    destination: str


@dataclass(slots=True)
class Replayed:
    """The letters that were replayed, by partition."""

    _offsets: dict[int, set[int]] = field(default_factory=dict)

    def add(self, places: Iterable[Place]) -> None:
        """These were replayed."""
        for partition, offset in places:
            self._offsets.setdefault(partition, set()).add(offset)

    def __contains__(self, place: Place) -> bool:
        return place[1] in self._offsets.get(place[0], ())

    def __len__(self) -> int:
        return sum(map(len, self._offsets.values()))


class Watermarks:
    """How far every letter is settled: what a consumer group commits, so that lag means work that is left.

    Letters of a partition are told in their order; the first that stays behind holds its partition's mark.
    """

    def __init__(self) -> None:
        self._marks: dict[int, int] = {}
        self._held: set[int] = set()

    def tell(self, place: Place, *, settled: bool) -> None:
        """The letter there is done with, or stays behind."""
        partition, offset = place
        if not settled:
            self._held.add(partition)
        elif partition not in self._held:
            self._marks[partition] = offset + 1

    def pass_ends(self, ends: Mapping[int, int]) -> None:
        """All letters before these offsets were told; where none stays behind, all before them is settled.

        The last ones may be markers of transactions, which no reader is given.
        """
        self._marks |= {partition: end for partition, end in ends.items() if partition not in self._held}

    def marks(self) -> Mapping[int, int]:
        """The next offset to settle by partition, where it has moved."""
        return dict(self._marks)


def encode_entry(scope: LedgerScope, places: Iterable[Place], at: datetime) -> bytes:
    """The ledger's record of one transaction: runs of offsets, ends included, by partition."""
    by_partition: dict[int, list[int]] = {}
    for partition, offset in places:
        by_partition.setdefault(partition, []).append(offset)
    replayed = {str(number): list(_runs(sorted(offsets))) for number, offsets in by_partition.items()}
    document = {"topic_id": scope.topic_id, "destination": scope.destination, "at": at, "replayed": replayed}
    return orjson.dumps(document)


def decode_entry(value: bytes | None, scope: LedgerScope) -> list[Place]:
    """The letters that an entry names; none where it is about another topic or destination.

    Raises:
        MalformedRecordError: it is no entry. A replay that went on without it would send letters twice.
    """
    try:
        document = orjson.loads(value or b"")
        if (document["topic_id"], document["destination"]) != (scope.topic_id, scope.destination):
            return []
        return [
            (int(partition), offset)
            for partition, runs in document["replayed"].items()
            for first, last in runs
            for offset in range(first, last + 1)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MalformedRecordError(f"a record of the replays' ledger is none: {error!r}") from error


def _runs(offsets: list[int]) -> Iterator[tuple[int, int]]:
    first = last = offsets[0]
    for offset in offsets[1:]:
        if offset != last + 1:
            yield first, last
            first = offset
        last = offset
    yield first, last
