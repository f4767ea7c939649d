"""What the demo counts and concludes, and how it is shown; without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from ferryline.deploy.demo.caller import CallTally
from ferryline.deploy.demo.snapshot import Served, Snapshot
from ferryline.deploy.demo.summary import faults, summarise
from ferryline.deploy.demo.tally import ConsumerTally, Tally, median
from ferryline.deploy.demo.view import one_line, render
from ferryline.registry.documents import ChannelEntry, Operation
from ferryline.streams.scored import ModelStamp, ScoredRecord

START = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def entry(generation: int, version: int, operation: Operation = Operation.PROMOTE) -> ChannelEntry:
    return ChannelEntry(
        model="digits", channel="production", generation=generation, version=version,
        blob_digest=DIGEST, manifest_digest=DIGEST, operation=operation, actor="a", at=after(generation),
        op_id="x", previous=None, held=operation is Operation.ROLLBACK,
    )  # fmt: skip


def scored(generation: int, version: int, *, at: float, right: bool = True) -> ScoredRecord:
    return ScoredRecord(
        prediction=1, scores=None, event_time=after(at), scored_at=after(at), actual=1 if right else 2,
        model=ModelStamp("digits", version, generation, DIGEST),
    )  # fmt: skip


HISTORY = [entry(1, 1), entry(2, 2), entry(3, 3), entry(4, 4), entry(5, 3, Operation.ROLLBACK)]


def good_run() -> dict[str, Any]:
    tally, calls = Tally(), CallTally(answered=10)
    for item in HISTORY:
        tally.add_scored(scored(item.generation, item.version, at=item.generation + 0.5))
        calls.server.saw(item.generation, item.version, after(item.generation + 0.25))
    tally.add_dead(2)
    return summarise(
        history=HISTORY, published=4, records_in=7, tally=tally, calls=calls,
        rollback=HISTORY[-1], seconds=9.0,
    )  # fmt: skip


def test_a_good_run_has_no_faults_and_says_its_figures() -> None:
    summary = good_run()
    assert faults(summary, generations_wanted=4) == []
    assert summary["generations_seen"] == {"flink": [1, 2, 3, 4, 5], "grpc": [1, 2, 3, 4, 5]}
    assert summary["swap_seconds"]["flink"] == {"count": 4, "median": 0.5, "max": 0.5}
    assert summary["swap_seconds"]["grpc"]["median"] == 0.25
    assert summary["accuracy_by_version"] == {"1": 1.0, "2": 1.0, "3": 1.0, "4": 1.0}
    assert summary["rollback"]["to_version"] == 3


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"records_in": 8}, "1 records of 8 are missing"),
        ({"records_in": 6}, "1 too many"),
        ({"failed_requests": 1}, "1 requests failed"),
        (
            {"generations_seen": {"flink": [1, 2], "grpc": [1, 2, 3, 4]}},
            "flink was seen to serve 2 generations",
        ),
        (
            {"rollback": {"generation": 5, "to_version": 3, "flink_serves": [5, 3], "grpc_serves": [4, 4]}},
            "grpc does not serve the version",
        ),
    ],
)
def test_each_fault_is_named(change: dict[str, Any], fault: str) -> None:
    assert fault in "; ".join(faults(good_run() | change, generations_wanted=4))


def test_the_earliest_answer_counts_whatever_the_order_of_reading() -> None:
    tally = ConsumerTally()
    tally.saw(2, 2, after(2.75))
    tally.saw(2, 2, after(2.5))
    tally.saw(1, 1, after(1.5))
    assert tally.newest == (2, 2)
    assert tally.latencies(HISTORY) == {2: 0.5}


def test_what_was_promoted_before_anyone_looked_is_no_swap() -> None:
    tally = ConsumerTally()
    assert tally.latencies(HISTORY) == {}
    tally.saw(2, 2, after(9.0))
    tally.saw(3, 3, after(9.5))
    assert tally.latencies(HISTORY) == {}


def test_accuracy_counts_labelled_records_only() -> None:
    tally = Tally()
    tally.add_scored(scored(1, 1, at=1))
    tally.add_scored(scored(1, 1, at=1, right=False))
    tally.add_scored(scored(1, 1, at=1).model_copy(update={"actual": None}))
    assert (tally.scored, tally.versions[1].accuracy) == (3, 0.5)


def test_the_median_of_none_is_none() -> None:
    assert median([]) is None
    assert median([3.0, 1.0, 2.0]) == 2.0


@pytest.mark.parametrize(
    "shot",
    [
        Snapshot(),
        Snapshot(
            records_in=10, training_version=3, accuracy=0.9, head=HISTORY[-1],
            flink=Served(5, 3, 5, 0.5), accuracies={3: (10, 0.9), 4: (1, None)},
        ),
    ],
)  # fmt: skip
def test_every_snapshot_can_be_shown(shot: Snapshot) -> None:
    console = Console(record=True, width=100, file=None, quiet=False)
    with console.capture() as captured:
        console.print(render(shot, {"Kafka": "127.0.0.1:9092"}, "playing"))
    assert "127.0.0.1:9092" in captured.get()
    assert "playing" in one_line(shot, "playing")
