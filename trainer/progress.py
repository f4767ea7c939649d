"""How far the trainer has come: what it learnt, what it skipped, and where it reads on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Self
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from ferryline.registry.documents import Lineage, OffsetRange, PastOffsets
from ferryline.trainer.export import Precision
from ferryline.trainer.positions import Placement

PAST_RANGES = 256
"""So many ranges that reading left behind are kept, the newest ones."""


class PastRange(BaseModel):
    """Records that were learnt and that reading left behind: of another topic, or replaced by the broker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic_id: str
    partition: NonNegativeInt
    first: NonNegativeInt
    end: NonNegativeInt


class Progress(BaseModel):
    """Everything the trainer must remember besides numbers in arrays; it is part of the state file.

    `placed` and `advanced` return another one and leave this one as it is.

    Attributes:
        run: names this learner for good; its versions carry it, so that it knows them again.
        records: learnt so far.
        skipped: rejected so far, by reason.
        topic_id: of the topic that `first` and `next` are of; empty where it is not known (older states).
        first: by partition, the first offset read.
        next: by partition, the first offset not read yet.
        past: ranges that were read before those, of another topic or before the broker cut the log.
        newest_event_time: of all that was learnt.
        published_records: `records` when the last published version was exported.
        last_version: that this learner published.
        precision: of every file of this learner, chosen by the first that passed; None before it.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=False)

    run: str = Field(default_factory=lambda: uuid4().hex)
    records: NonNegativeInt = 0
    skipped: dict[str, NonNegativeInt] = Field(default_factory=dict)
    topic_id: str = ""
    first: dict[int, NonNegativeInt] = Field(default_factory=dict)
    next: dict[int, NonNegativeInt] = Field(default_factory=dict)
    past: tuple[PastRange, ...] = ()
    newest_event_time: AwareDatetime | None = None
    published_records: NonNegativeInt = 0
    last_version: int | None = None
    precision: Precision | None = None

    @property
    def consumed(self) -> int:
        """Records read: learnt or skipped."""
        return self.records + sum(self.skipped.values())

    @property
    def placement(self) -> Placement:
        """Where reading goes on."""
        return Placement(self.topic_id, dict(self.next))

    @property
    def left_topics(self) -> frozenset[str]:
        """The ids of topics of the same name that were read before."""
        return frozenset(each.topic_id for each in self.past) - {"", self.topic_id}

    def placed(self, placement: Placement) -> Self:
        """Returns the progress of a trainer that reads on at `placement`.

        Going forward leaves a hole in a partition's range. Going back, or to another topic, ends the range.
        """
        first, following, past = dict(self.first), dict(self.next), list(self.past)
        if self.topic_id and placement.topic_id and self.topic_id != placement.topic_id:
            past += [self._past(partition) for partition in sorted(following)]
            first, following = {}, {}
        for partition, offset in placement.offsets.items():
            if offset < following.get(partition, 0):
                past.append(self._past(partition))
                first[partition] = offset
            first.setdefault(partition, offset)
            following[partition] = offset
        kept = [each for each in past if each.first < each.end][-PAST_RANGES:]
        topic_id = placement.topic_id or self.topic_id
        update = {"topic_id": topic_id, "first": first, "next": following, "past": tuple(kept)}
        return self.model_copy(update=update)

    def advanced(
        self, *, learnt: int, skipped: Counter[str], offsets: Mapping[int, int], newest: datetime | None
    ) -> Self:
        """Returns the progress after a batch."""
        counts = dict(self.skipped)
        for reason, count in skipped.items():
            counts[reason] = counts.get(reason, 0) + count
        return self.model_copy(
            update={
                "records": self.records + learnt,
                "skipped": counts,
                "next": {**self.next, **offsets},
                "newest_event_time": max(filter(None, (newest, self.newest_event_time)), default=None),
            }
        )

    def lineage(self, topic: str) -> Lineage:
        """What the learner knows: all records from the first it read, not only those since its parent."""
        present = (
            OffsetRange(partition=partition, first=self.first[partition], end=self.next[partition])
            for partition in sorted(self.next)
        )
        return Lineage(
            topic=topic,
            topic_id=self.topic_id or None,
            offsets=tuple(present),
            past=tuple(
                PastOffsets(
                    partition=each.partition, first=each.first, end=each.end, topic_id=each.topic_id or None
                )
                for each in self.past
            ),
            records=self.records,
            skipped=sum(self.skipped.values()),
            newest_event_time=self.newest_event_time,
        )

    def _past(self, partition: int) -> PastRange:
        return PastRange(
            topic_id=self.topic_id,
            partition=partition,
            first=self.first[partition],
            end=self.next[partition],
        )
