"""Labels that come later, on the real stack: each is counted once, for the version that it is about."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ferryline.deploy.stack.local import LocalStack
from tests.flink_scoring.accuracy import (
    WITHIN,
    accuracy,
    create_labels,
    labelled,
    labels_toml,
    labels_topic,
    send_at,
)
from tests.flink_scoring.flink_metrics import job_metrics
from tests.flink_scoring.harness import ScoringJob, digit, make_job
from tests.support.waiting import wait_for

HOUR = 3_600_000


@pytest.fixture
def job(fault_stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    name = f"digits-{uuid.uuid4().hex[:8]}"
    made = make_job(fault_stack, pipeline_text(name) + labels_toml(name), tmp_path)
    made.create_source()
    create_labels(made)
    yield made
    made.end()


def test_every_label_is_counted_once_for_the_version_it_is_about_whatever_happens(
    job: ScoringJob, constant_model: Callable[..., bytes]
) -> None:
    job.promote(constant_model(1))
    job.submit()
    begun = datetime.now(UTC)
    then = int(begun.timestamp() * 1000) - HOUR  # so that what closes the time is now
    source = job.pipeline.source.topic
    send_at(job, source, [(f"a{n}".encode(), digit(n), then + n) for n in range(100)])
    job.read(lambda output: len(output.seen) == 100)
    job.promote(constant_model(2))
    job.wait_until_serving(2)
    send_at(job, source, [(f"b{n}".encode(), digit(n), then + n) for n in range(100)])
    output = job.read(lambda output: len(output.seen) == 200)
    assert {record.model.version for key, record in output.scored.items() if key[:1] == b"b"} == {2}

    soon = then + 30_000
    truth = [
        (key, json.dumps({"actual_y": int(key[1:]) % 10}).encode(), soon) for key in sorted(output.scored)
    ]
    send_at(job, labels_topic(job), truth[:150])
    accuracy(job, lambda found: labelled(found) == 150)
    job.stack.kill_part("taskmanager")
    send_at(job, labels_topic(job), truth[150:])
    job.stack.start_part("taskmanager")
    send_at(
        job,
        labels_topic(job),
        [
            (b"a1", b"no class", soon),
            (b"a1", b"1", then + WITHIN * 1000 + 10_000),
            (b"nobody", b"1", soon),
            (None, b"1", soon),
        ],
    )
    accuracy(job, lambda found: labelled(found) >= 200)
    now = int(time.time() * 1000)
    send_at(job, source, [(b"last", digit(2), now)])
    job.read(lambda output: b"last" in output.scored)
    send_at(job, labels_topic(job), [(b"last", b"2", now)])
    # counters begin anew with a task manager; these three labels were held until the time was over
    wait_for(lambda: job_metrics(job).get("labels_unmatched") == 3, "the labels without a prediction")
    found = accuracy(job, lambda found: labelled(found) >= 201)

    totals: Counter[tuple[int, str]] = Counter()
    for record in found:
        assert record["model"] == job.pipeline.model
        assert record["generation"] == record["version"]
        assert record["accuracy"] == pytest.approx(record["right"] / record["labelled"])
        totals[record["version"], "labelled"] += record["labelled"]
        totals[record["version"], "right"] += record["right"]
        began, ended = (datetime.fromisoformat(record[name]) for name in ("window_start", "window_end"))
        assert (ended - began).total_seconds() == 1
        assert begun - timedelta(seconds=1) <= began <= datetime.now(UTC), "windows go by the clock"
    assert totals == {(1, "labelled"): 100, (1, "right"): 10, (2, "labelled"): 101, (2, "right"): 11}
    windows = Counter((record["window_start"], record["version"]) for record in found)
    assert set(windows.values()) == {1}, "a window of a version has one record"
    shown = job_metrics(job)
    assert shown["labels_malformed"] == 1
    assert shown["label_newest_generation"] == 2
    assert job.calls("ferry_score") == 1, "Flink would score every record twice"
    assert job.calls("ferry_judge") == 1, "Flink would count every label twice"
