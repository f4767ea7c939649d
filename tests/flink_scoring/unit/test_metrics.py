from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.flink_scoring.labelling.verdicts import LabelOutcome
from ferryline.flink_scoring.live.labels import LabelMetrics
from ferryline.flink_scoring.live.scoring import ScoringMetrics, class_number, seconds_behind, show_model
from ferryline.flink_scoring.live.tally import SAMPLE, BatchTally
from ferryline.flink_scoring.live.windows import RecentSums, percent
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.documents import Canary, ChannelEntry, Lineage
from tests.flink_scoring.recorded_metrics import RecordedGroup

DIGEST = f"sha256:{0:064}"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Follower:
    current: ServedModel | None = None
    newest: ChannelEntry | None = None
    swaps: int = 0


@given(
    amounts=st.lists(st.tuples(st.floats(0, 8), st.integers(0, 100)), max_size=30),
    later=st.floats(0, 25),
)
def test_recent_sums_hold_the_span_and_at_most_a_step_more(
    amounts: list[tuple[float, int]], later: float
) -> None:
    clock = Clock()
    recent = RecentSums(1, span=10.0, clock=clock)
    added: list[tuple[float, int]] = []
    for pause, amount in amounts:
        clock.now += pause
        recent.add(amount)
        added.append((clock.now, amount))
    clock.now += later
    [found] = recent.sums()
    within = sum(amount for at, amount in added if clock.now - at < 10.0)
    at_most = sum(amount for at, amount in added if clock.now - at <= 10.5 + 1e-6)
    assert within <= found <= at_most


def test_nothing_of_nothing_is_no_percentage() -> None:
    assert (percent(0, 0), percent(0, 3), percent(2, 3), percent(3, 3)) == (-1, 0, 67, 100)


def test_a_batch_is_counted_by_what_became_of_its_records() -> None:
    group = RecordedGroup()
    metrics = ScoringMetrics(group, tuple(range(10)), clock=Clock())
    tally = BatchTally()
    tally.add([1, 2, 3], [1, None, 4], 0.002)
    metrics.batch(5, tally, [None, "invalid_json", None, None, "invalid_json"], canary=1)
    metrics.batch(1, BatchTally(), ["wrong_length"])
    totals = {name: each.total for name, each in group.instruments.items()}
    assert totals["sample_count"] == 3
    assert totals["dead_letters"] == 3
    assert totals["reason.invalid_json.dead_letters"] == 2
    assert totals["reason.wrong_length.dead_letters"] == 1
    assert (totals["total_10_sec"], totals["right_10_sec"]) == (2, 1)
    assert group.instruments["metric_distribution_y"].values == [1, 2, 3]
    assert group.instruments["batch_size"].values == [5, 1]
    assert group.instruments["inference_us"].values == [2000]
    assert dict(group.shown()) == {"prediction_a": 50, "inference_us_10_sec": 2000, "canary_share": 33}


def test_gauges_of_the_last_ten_seconds_forget() -> None:
    group, clock = RecordedGroup(), Clock()
    metrics = ScoringMetrics(group, (0, 1), clock=clock)
    tally = BatchTally()
    tally.add([1], [1], 0.001)
    metrics.batch(1, tally, [None])
    assert group.gauges["prediction_a"]() == 100
    clock.now += 11
    assert set(dict(group.shown()).values()) == {-1}


@pytest.mark.parametrize(
    ("classes", "numbers"), [((3, 7), (3, 7)), ((False, True), (0, 1)), (("ham", "spam"), (0, 1))]
)
def test_a_class_that_is_no_number_is_shown_by_its_place(
    classes: tuple[bool | int | str, ...], numbers: tuple[int, ...]
) -> None:
    assert tuple(class_number(label, place) for place, label in enumerate(classes)) == numbers
    assert not any(isinstance(class_number(label, 1), bool) for label in classes)


@given(sizes=st.lists(st.integers(0, 500), max_size=5))
def test_a_sample_is_everything_of_a_small_batch_and_bounded_of_a_large_one(sizes: list[int]) -> None:
    tally = BatchTally()
    for size in sizes:
        tally.add(list(range(size)), [None] * size, 0.0)
    assert len(tally.sample) <= SAMPLE
    if sum(sizes) <= SAMPLE:
        assert tally.sample == [answer for size in sizes for answer in range(size)]


def test_the_model_that_serves_is_shown(
    serve: Callable[..., ServedModel], constant_model: Callable[..., bytes]
) -> None:
    group, follower = RecordedGroup(), Follower()
    show_model(group, follower, lambda: 4, now=lambda: NOW)
    assert group.gauges["model_version"]() == group.gauges["model_generation"]() == -1
    served = serve(constant_model(1))
    lineage = Lineage(topic="t", offsets=(), records=1, newest_event_time=NOW - timedelta(seconds=90))
    manifest = served.manifest.model_copy(update={"lineage": lineage})
    share = Canary(version=2, blob_digest=DIGEST, manifest_digest=DIGEST, percent=25)
    entry = served.entry.model_copy(update={"canary": share, "generation": 7})
    follower.current, follower.swaps = replace(served, manifest=manifest, entry=entry), 3
    assert dict(group.shown()) == {
        "model_version": 1,
        "model_generation": 7,
        "canary_percent": 25,
        "model_data_age_seconds": 90,
        "seconds_behind": 0,
        "swap_count": 3,
        "refused_count": 4,
    }


def test_behind_is_as_long_as_a_newer_generation_waits(
    serve: Callable[..., ServedModel], constant_model: Callable[..., bytes]
) -> None:
    first = serve(constant_model(1))
    newer = first.entry.model_copy(update={"generation": 2, "at": NOW - timedelta(seconds=8)})
    assert seconds_behind(Follower(), NOW) == 0
    assert seconds_behind(Follower(first, first.entry), NOW) == 0
    assert seconds_behind(Follower(first, newer), NOW) == 8
    assert seconds_behind(Follower(None, newer), NOW) == 8
    assert seconds_behind(Follower(first, newer), NOW - timedelta(minutes=1)) == 0


def test_labels_are_counted_by_outcome_and_by_the_newest_generation() -> None:
    group, clock = RecordedGroup(), Clock()
    metrics = LabelMetrics(group, clock=clock)
    right, wrong, lost, bad = LabelOutcome
    metrics.judged([right, wrong, lost, bad], [1, 1, None, None])
    assert {name: each.total for name, each in group.instruments.items()} == {
        "labels_right": 1,
        "labels_wrong": 1,
        "labels_unmatched": 1,
        "labels_malformed": 1,
    }
    assert dict(group.shown()) == {
        "label_accuracy": 50,
        "label_accuracy_newest": 50,
        "label_newest_generation": 1,
    }
    metrics.judged([right, wrong], [2, 1])
    assert dict(group.shown()) == {
        "label_accuracy": 50,
        "label_accuracy_newest": 100,
        "label_newest_generation": 2,
    }
    clock.now += 11
    assert group.gauges["label_accuracy"]() == -1


def test_a_prediction_that_names_no_generation_is_of_none() -> None:
    group = RecordedGroup()
    metrics = LabelMetrics(group, clock=Clock())
    nothing = float("nan")  # whole numbers beside a NULL come from Arrow as floats
    metrics.judged([LabelOutcome.RIGHT, LabelOutcome.WRONG, LabelOutcome.UNMATCHED], [7.0, nothing, nothing])
    assert group.instruments["labels_wrong"].total == 1
    shown = dict(group.shown())
    assert (shown["label_accuracy"], shown["label_newest_generation"]) == (100, 7)
