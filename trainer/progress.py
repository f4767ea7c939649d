"""How far the trainer has come: what it learnt, what it skipped, and where it reads on."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from ferryline.registry.documents import Lineage, OffsetRange
from ferryline.trainer.export import Precision


class Progress(BaseModel):
    """Everything the trainer must remember besides numbers in arrays; it is part of the state file.

    Attributes:
        run: names this learner for good; its versions carry it, so that it knows them again.
        records: learnt so far.
        skipped: rejected so far, by reason.
        first: by partition, the first offset ever read.
        next: by partition, the first offset not read yet.
        newest_event_time: of all that was learnt.
        published_records: `records` when the last published version was exported.
        last_version: that this learner published.
        precision: of every file of this learner, chosen by the first that passed; None before it.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=False)

    run: str = Field(default_factory=lambda: uuid4().hex)
    records: NonNegativeInt = 0
    skipped: dict[str, NonNegativeInt] = Field(default_factory=dict)
    first: dict[int, NonNegativeInt] = Field(default_factory=dict)
    next: dict[int, NonNegativeInt] = Field(default_factory=dict)
    newest_event_time: AwareDatetime | None = None
    published_records: NonNegativeInt = 0
    last_version: int | None = None
    precision: Precision | None = None

    @property
    def consumed(self) -> int:
        """Records read: learnt or skipped."""
        return self.records + sum(self.skipped.values())

    def begin(self, offsets: dict[int, int]) -> None:
        """Note where partitions that were never read before begin."""
        for partition, offset in offsets.items():
            self.first.setdefault(partition, offset)
            self.next.setdefault(partition, offset)

    def advance(
        self, *, learnt: int, skipped: Counter[str], offsets: dict[int, int], newest: datetime | None
    ) -> None:
        """Account for a batch."""
        self.records += learnt
        for reason, count in skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.next.update(offsets)
        if newest and (self.newest_event_time is None or newest > self.newest_event_time):
            self.newest_event_time = newest

    def lineage(self, topic: str) -> Lineage:
        """What the learner knows: all records from the first it read, not only those since its parent."""
        return Lineage(
            topic=topic,
            offsets=tuple(
                OffsetRange(partition=partition, first=self.first[partition], end=self.next[partition])
                for partition in sorted(self.next)
            ),
            records=self.records,
            skipped=sum(self.skipped.values()),
            newest_event_time=self.newest_event_time,
        )
