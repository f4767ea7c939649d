"""A Kafka broker in memory, as far as a reader can tell: logs with all that can happen to them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

UNDEFINED = (-1, -1)
"""The answer to who asks for an epoch that the broker knows nothing of."""


@dataclass(slots=True)
class Entry:
    """One offset of a log that is not empty.

    Attributes:
        offset: where it lies.
        epoch: of the leader that took it.
        ident: unique among all records of a history; None for a transaction's marker.
        value: the bytes, None for a tombstone.
        timestamp: milliseconds since 1970, as the producer wrote them.
        transaction: that it belongs to.
    """

    offset: int
    epoch: int
    ident: int | None
    value: bytes | None = None
    timestamp: int = -1
    transaction: int | None = None


@dataclass(slots=True)
class Partition:
    """A log, and what its leader knows of it."""

    start: int = 0
    end: int = 0
    entries: list[Entry] = field(default_factory=list)
    epochs: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    open_transactions: dict[int, int] = field(default_factory=dict)
    aborted: set[int] = field(default_factory=set)

    @property
    def epoch(self) -> int:
        """The leader's epoch."""
        return self.epochs[-1][0]

    @property
    def stable_end(self) -> int:
        """The last stable offset: who reads what is committed sees nothing from here on."""
        return min(self.open_transactions.values(), default=self.end)

    def append(
        self, ident: int | None, value: bytes | None, timestamp: int, transaction: int | None = None
    ) -> Entry:
        """Add a record."""
        if transaction is not None and ident is not None:
            self.open_transactions.setdefault(transaction, self.end)
        entry = Entry(self.end, self.epoch, ident, value, timestamp, transaction)
        self.entries.append(entry)
        self.end += 1
        return entry

    def finish(self, transaction: int, *, commit: bool) -> None:
        """End a transaction: its marker takes an offset."""
        if self.open_transactions.pop(transaction, None) is None:
            return
        if not commit:
            self.aborted.add(transaction)
        self.append(None, None, 0, transaction)

    def retain_from(self, offset: int) -> list[Entry]:
        """Remove all before `offset`, as retention does; returns what went."""
        self.start = max(self.start, min(offset, self.end))
        gone = [entry for entry in self.entries if entry.offset < self.start]
        self.entries = [entry for entry in self.entries if entry.offset >= self.start]
        return gone

    def compact(self, offsets: Iterable[int]) -> list[Entry]:
        """Remove records, as compaction does; the newest offset of a log always stays."""
        chosen = set(offsets) - {self.end - 1}
        removed = [e for e in self.entries if e.offset in chosen and e.ident is not None]
        numbers = {entry.offset for entry in removed}
        self.entries = [entry for entry in self.entries if entry.offset not in numbers]
        return removed

    def truncate(self, offset: int) -> list[Entry]:
        """Lose all from `offset` on: a replica became leader that did not have it (unclean election)."""
        offset = max(offset, self.start)
        gone = [entry for entry in self.entries if entry.offset >= offset]
        self.entries = [entry for entry in self.entries if entry.offset < offset]
        self.end = min(self.end, offset)
        self.open_transactions = {t: at for t, at in self.open_transactions.items() if at < offset}
        kept = [(epoch, at) for epoch, at in self.epochs if at < self.end]
        self.epochs = [*kept, (self.epoch + 1, self.end)]
        return gone

    def end_of_epoch(self, epoch: int) -> tuple[int, int]:
        """The newest epoch not above `epoch` and where it ends, as OffsetForLeaderEpoch answers."""
        if epoch == self.epoch:
            return epoch, self.end
        below = [index for index, (number, _) in enumerate(self.epochs) if number <= epoch]
        if epoch > self.epoch:
            return UNDEFINED
        if not below:
            return epoch, self.epochs[0][1]
        return self.epochs[below[-1]][0], self.epochs[below[-1] + 1][1]

    def is_visible(self, entry: Entry) -> bool:
        """Whether a reader of what is committed is given it, now or once its transaction is committed."""
        return entry.ident is not None and entry.transaction not in self.aborted

    def visible(self, begin: int = 0) -> Iterator[Entry]:
        """What a reader of what is committed is given from `begin` on."""
        end = self.stable_end
        return (e for e in self.entries if begin <= e.offset < end and self.is_visible(e))


@dataclass(slots=True)
class Topic:
    """A topic: another one where its id differs, whatever its name."""

    ident: uuid.UUID
    partitions: list[Partition]


class Broker:
    """A broker with topics; it can be away."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.down = False
        self.committed: dict[tuple[str, int], int] = {}
        self._made = 0

    def create(self, name: str, partitions: int) -> Topic:
        """Make a topic."""
        self._made += 1
        topic = Topic(uuid.UUID(int=self._made), [Partition() for _ in range(partitions)])
        self.topics[name] = topic
        return topic

    def delete(self, name: str) -> None:
        """Delete a topic, and what groups committed of it."""
        del self.topics[name]
        self.committed = {at: offset for at, offset in self.committed.items() if at[0] != name}

    def partition(self, topic: str, number: int) -> Partition | None:
        """A partition, None where there is none."""
        found = self.topics.get(topic)
        return found.partitions[number] if found and number < len(found.partitions) else None
