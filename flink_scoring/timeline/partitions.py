"""The partitions of a subtask, shared between the thread that scores and the one that writes ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ferryline.flink_scoring.timeline.documents import Reserved
from ferryline.flink_scoring.timeline.pace import Pace
from ferryline.flink_scoring.timeline.rules import Assigned, Switch, Timeline


@dataclass(slots=True)
class Kept:
    """One partition.

    Attributes:
        name: of its log.
        timeline: what is known of it.
        pace: how fast its records come.
        offered: the entry on its way and its bytes, which are offered until the log shows whose they are.
    """

    name: str
    timeline: Timeline
    pace: Pace
    offered: tuple[Switch, bytes] | None = None


@dataclass(slots=True)
class Shared:
    """What both threads see; `changed` is held for all of it and told of every news.

    Attributes:
        partitions: what was begun.
        away: the store did not answer in time, so nothing waits for it until it does.
    """

    changed: threading.Condition = field(default_factory=threading.Condition)
    partitions: dict[int, Kept] = field(default_factory=dict)
    away: bool = False

    def needed(self) -> set[Assigned]:
        """All generations that may score from here on."""
        return {by for kept in self.partitions.values() for by in kept.timeline.needed}

    def to_reserve(self, now: float) -> dict[int, int]:
        """Up to where to reserve the partitions where that is to be changed; less holds at once."""
        wanted: dict[int, int] = {}
        for partition, kept in self.partitions.items():
            until = kept.timeline.shall_reserve(kept.pace.room(now))
            if until is not None:
                wanted[partition] = until
                if until < kept.timeline.reserved:
                    kept.timeline.reserve(until)
        return wanted

    def reservations(self, wanted: Mapping[int, int]) -> dict[str, Reserved]:
        """What to write so that the offsets `wanted` are reserved too."""
        return {
            kept.name: Reserved(
                until=max(wanted.get(partition, kept.timeline.reserved), kept.timeline.safe_floor),
                newest=kept.timeline.number,
            )
            for partition, kept in self.partitions.items()
        }

    def reserve(self, wanted: Mapping[int, int]) -> None:
        """That is written."""
        for partition, until in wanted.items():
            self.partitions[partition].timeline.reserve(until)

    def settled(self) -> dict[str, Reserved]:
        """What to write when nothing more is scored: no further than what was."""
        return {
            kept.name: Reserved(until=kept.timeline.safe_floor, newest=kept.timeline.number)
            for kept in self.partitions.values()
        }


def all_may_go(waiting: Iterable[tuple[Kept, int]]) -> bool:
    """Whether the records up to an offset of each partition can be scored; all are asked, as it is noted."""
    answers = [kept.timeline.must_wait(last) for kept, last in waiting]
    return not any(answers)
