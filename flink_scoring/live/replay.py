"""What Flink's page shows of timelines: records that they do not cover."""

from __future__ import annotations

from typing import Any

from ferryline.flink_scoring.timeline.keeper import Counts


class ReplayMetrics:
    """`unrecorded` and `replayed_otherwise` in the group of the scoring function.

    Args:
        group: Flink's metric group.
        counts: what the keeper counts.
    """

    def __init__(self, group: Any, counts: Counts) -> None:
        self._counts = counts
        self._unrecorded = group.counter("unrecorded")
        self._otherwise = group.counter("replayed_otherwise")

    def update(self) -> None:
        """Show what was counted since."""
        for counter, count in (
            (self._unrecorded, self._counts.unrecorded),
            (self._otherwise, self._counts.replayed_otherwise),
        ):
            counter.inc(count - counter.get_count())
