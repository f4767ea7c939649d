"""What really happened to every record of a history, whatever the trainer believes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from tests.simulation.training.fake_log import Broker, Entry, Partition
from tests.simulation.training.learning import POISON

TOPIC = "records"
HUGE = 3e39  # a finite number that float32 has no room for
_NOW = 1_767_225_600_000
_TIMESTAMPS = {"year_10000": _NOW * 1000, "year_-300": -71_600_000_000_000, "no_time": -1}
LEARNABLE = {"good", "wrong", "no_time", "huge"}
EITHER = {"year_10000", "year_-300"}
"""A record without a moment may be learnt or rejected, as long as it is counted."""


@dataclass(slots=True)
class Truth:
    """A record: where it was written, what it is, what removed it, and whether it is seen.

    It `overgrows` where it has an offset that another record had, which was lost while no reader knew the
    epoch of the leader: to who knows offsets only, nothing has changed.
    """

    ident: int
    topic: uuid.UUID
    partition: int
    offset: int
    kind: str
    transaction: int | None = None
    removed_by: str = ""
    overgrows: bool = False


class Records:
    """All records of a history."""

    def __init__(self, broker: Broker) -> None:
        self.all: dict[int, Truth] = {}
        self._broker = broker
        self._unseen_cuts: dict[tuple[uuid.UUID, int], int] = {}
        self._transactions = 0

    def append(self, partition: int, kinds: Iterable[str], transaction: int | None = None) -> None:
        """Write records of these kinds, if there is such a partition."""
        log = self._broker.partition(TOPIC, partition)
        if log is None:
            return
        topic = self._broker.topics[TOPIC].ident
        for kind in kinds:
            ident = len(self.all) + 1
            entry = log.append(ident, _value(ident, kind), _TIMESTAMPS.get(kind, _NOW + ident), transaction)
            truth = Truth(ident, topic, partition, entry.offset, kind, transaction)
            truth.overgrows = entry.offset < self._unseen_cuts.get((topic, partition), 0)
            self.all[ident] = truth

    def begin_transaction(self) -> int:
        """The number of a new transaction."""
        self._transactions += 1
        return self._transactions

    def note_unseen_cut(self, partition: int, cut_at: int, end: int) -> None:
        """The log was cut back from `end`, and no reader can tell."""
        key = (self._broker.topics[TOPIC].ident, partition)
        self._unseen_cuts[key] = max(self._unseen_cuts.get(key, 0), end)
        for truth in self.all.values():
            if (truth.topic, truth.partition) == key and cut_at <= truth.offset < end:
                truth.overgrows = True

    def remove(self, entries: Iterable[Entry], by: str) -> None:
        """Note that `by` removed these."""
        for entry in entries:
            if entry.ident is not None:
                self.all[entry.ident].removed_by = by

    def current(self) -> dict[int, Partition]:
        """The partitions of the topic as it is now."""
        topic = self._broker.topics.get(TOPIC)
        return dict(enumerate(topic.partitions)) if topic else {}

    def is_lost(self, truth: Truth) -> bool:
        """Whether a reader should have been given it and no longer can be."""
        topic = self._broker.topics.get(TOPIC)
        if not truth.removed_by or topic is None or truth.topic != topic.ident:
            return False
        return truth.transaction not in topic.partitions[truth.partition].aborted

    def lost_between(self, partition: int, begin: int, end: int) -> list[Truth]:
        """The records between two offsets of a partition that were removed."""
        return [
            truth
            for truth in self.all.values()
            if truth.partition == partition and begin <= truth.offset < end and self.is_lost(truth)
        ]


def _value(ident: int, kind: str) -> bytes | None:
    if kind == "tombstone":
        return None
    if kind == "bad":
        return b"{"
    truth = ident % 3
    told = {"wrong": (truth + 1) % 3, "poison": POISON, "huge": HUGE}.get(kind, truth)
    return orjson.dumps({"x": [ident, told], "y": truth})
