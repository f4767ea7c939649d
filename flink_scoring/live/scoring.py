"""What a scoring worker tells Flink about itself; Flink's Web UI, REST interface and reporters show it.

Flink's Python metrics are whole numbers. Gauges are read when a bundle of records ends, so without records
they stand still; meters go on by themselves. A gauge that has nothing to say is -1.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from ferryline.flink_scoring.live.tally import BatchTally
from ferryline.flink_scoring.live.windows import RecentSums, percent
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.documents import ChannelEntry, Label

METRIC_GROUP = "online_ml"

_METER_SECONDS = 10
_MICROSECONDS = 1_000_000


class Instrument(Protocol):
    """A counter."""

    def inc(self, n: int = 1) -> None:
        """Count on."""


class MeterInstrument(Protocol):
    """Events per second."""

    def mark_event(self, value: int = 1) -> None:
        """Count events."""


class DistributionInstrument(Protocol):
    """Sum, count, minimum and maximum."""

    def update(self, value: int) -> None:
        """Take up a value."""


class MetricGroup(Protocol):
    """As much of PyFlink's metric group as is used here."""

    def add_group(self, name: str, extra: str | None = None) -> MetricGroup:
        """A group below this one."""

    def counter(self, name: str) -> Instrument:
        """A new counter."""

    def gauge(self, name: str, obj: Callable[[], int]) -> None:
        """A value that is asked for."""

    def meter(self, name: str, time_span_in_seconds: int = 60) -> MeterInstrument:
        """A new meter."""

    def distribution(self, name: str) -> DistributionInstrument:
        """A new distribution."""


class FollowedModel(Protocol):
    """As much of a follower as is shown."""

    current: ServedModel | None
    swaps: int

    @property
    def newest(self) -> ChannelEntry | None:
        """The newest entry of the channel."""


class ScoringMetrics:
    """Counts what became of each batch.

    Args:
        group: Flink's metric group of the function.
        classes: the classes of the pipeline, in order.
        clock: seconds, for what is shown of the last ten.
    """

    def __init__(
        self, group: MetricGroup, classes: Sequence[Label], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._group = group
        self._numbers = {label: class_number(label, place) for place, label in enumerate(classes)}
        self._samples = group.counter("sample_count")
        self._dead = group.counter("dead_letters")
        self._dead_by: dict[str, Instrument] = {}
        self._total = group.meter("total_10_sec", _METER_SECONDS)
        self._right = group.meter("right_10_sec", _METER_SECONDS)
        self._answers = group.distribution("metric_distribution_y")
        self._sizes = group.distribution("batch_size")
        self._inference = group.distribution("inference_us")
        self._labels = RecentSums(2, clock=clock)
        self._runs = RecentSums(2, clock=clock)
        self._shares = RecentSums(2, clock=clock)
        group.gauge("prediction_a", lambda: _share_of(self._labels))
        group.gauge("inference_us_10_sec", lambda: _mean_of(self._runs))
        group.gauge("canary_share", lambda: _share_of(self._shares))

    def batch(self, size: int, tally: BatchTally, reasons: Sequence[str | None], canary: int = 0) -> None:
        """Count a batch.

        Args:
            size: its records.
            tally: what the model said about those that it scored.
            reasons: why each of the others is dead; None for a scored one.
            canary: how many of them the canary scored.
        """
        dead = Counter(reason for reason in reasons if reason is not None)
        scored = size - dead.total()
        self._samples.inc(scored)
        self._bury(dead)
        self._total.mark_event(tally.labelled)
        self._right.mark_event(tally.right)
        self._labels.add(tally.right, tally.labelled)
        self._shares.add(canary, scored)
        self._sizes.update(size)
        self._run(tally.inference_seconds)
        for answer in tally.sample:
            self._answers.update(self._numbers[answer])

    def _bury(self, dead: Counter[str]) -> None:
        self._dead.inc(dead.total())
        for reason, count in dead.items():
            if reason not in self._dead_by:
                self._dead_by[reason] = self._group.add_group("reason", reason).counter("dead_letters")
            self._dead_by[reason].inc(count)

    def _run(self, seconds: float) -> None:
        if seconds:
            microseconds = round(seconds * _MICROSECONDS)
            self._inference.update(microseconds)
            self._runs.add(microseconds, 1)


def show_model(
    group: MetricGroup,
    follower: FollowedModel,
    refused: Callable[[], int],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Show in gauges what a follower serves.

    Args:
        group: where.
        follower: whose model.
        refused: how many candidates it refused.
        now: the time of day.
    """

    def of_current(read: Callable[[ServedModel], Any]) -> Callable[[], int]:
        return lambda: -1 if follower.current is None else int(read(follower.current))

    group.gauge("model_version", of_current(lambda served: served.version))
    group.gauge("model_generation", of_current(lambda served: served.generation))
    group.gauge("canary_percent", of_current(_canary_percent))
    group.gauge("model_data_age_seconds", of_current(lambda served: _data_age(served, now())))
    group.gauge("seconds_behind", lambda: seconds_behind(follower, now()))
    group.gauge("swap_count", lambda: follower.swaps)
    group.gauge("refused_count", refused)


def seconds_behind(follower: FollowedModel, now: datetime) -> int:
    """Seconds since the channel's newest generation was promoted, where it does not serve yet; else 0."""
    newest, current = follower.newest, follower.current
    if newest is None or (current is not None and current.generation >= newest.generation):
        return 0
    return max(0, int((now - newest.at).total_seconds()))


def class_number(label: Label, place: int) -> int:
    """The number that stands for a class: itself where it is one, else its place among the classes."""
    return label if isinstance(label, int) and not isinstance(label, bool) else place


def _canary_percent(served: ServedModel) -> float:
    return served.entry.canary.percent if served.entry.canary else 0


def _data_age(served: ServedModel, now: datetime) -> float:
    lineage = served.manifest.lineage
    if lineage is None or lineage.newest_event_time is None:
        return -1
    return (now - lineage.newest_event_time).total_seconds()


def _share_of(sums: RecentSums) -> int:
    part, whole = sums.sums()
    return percent(part, whole)


def _mean_of(sums: RecentSums) -> int:
    total, count = sums.sums()
    return round(total / count) if count else -1
