"""What became of delayed labels, in Flink's metrics."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ferryline.flink_scoring.labelling.verdicts import LabelOutcome
from ferryline.flink_scoring.live.scoring import MetricGroup
from ferryline.flink_scoring.live.windows import RecentSums, percent

_JUDGED = {LabelOutcome.RIGHT, LabelOutcome.WRONG}


class LabelMetrics:
    """Counts labels by outcome, and shows the accuracy by those of the last ten seconds.

    Args:
        group: Flink's metric group of the function.
        clock: seconds.
    """

    def __init__(self, group: MetricGroup, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = {outcome: group.counter(f"labels_{outcome}") for outcome in LabelOutcome}
        self._clock = clock
        self._all = RecentSums(2, clock=clock)
        self._newest = RecentSums(2, clock=clock)
        self._generation = -1
        group.gauge("label_accuracy", lambda: _percent(self._all))
        group.gauge("label_accuracy_newest", lambda: _percent(self._newest))
        group.gauge("label_newest_generation", lambda: self._generation)

    def judged(self, outcomes: Sequence[LabelOutcome], generations: Sequence[float | None]) -> None:
        """Count n labels.

        Args:
            outcomes: n outcomes.
            generations: n generations, those whose predictions were judged; None where there was none, or
                NaN, since whole numbers come as floats where one of a batch is missing.
        """
        for outcome, count in Counter(outcomes).items():
            self._counters[outcome].inc(count)
        judged = [
            (outcome is LabelOutcome.RIGHT, int(generation))
            for outcome, generation in zip(outcomes, generations, strict=True)
            if outcome in _JUDGED and generation is not None and not math.isnan(generation)
        ]
        self._all.add(sum(right for right, _ in judged), len(judged))
        self._add_newest(judged)

    def _add_newest(self, judged: list[tuple[bool, int]]) -> None:
        newest = max((generation for _, generation in judged), default=-1)
        if newest > self._generation:
            self._generation, self._newest = newest, RecentSums(2, clock=self._clock)
        of_newest = [right for right, generation in judged if generation == self._generation]
        self._newest.add(sum(of_newest), len(of_newest))


def _percent(sums: RecentSums) -> int:
    return percent(*sums.sums())
