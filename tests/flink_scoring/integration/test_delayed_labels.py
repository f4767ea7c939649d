"""Labels that come later, on the real stack: each is counted once, for the version that it is about."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer

from deploy.stack.local import LocalStack
from streams.kafka import ensure_topics
from tests.flink_scoring.flink_metrics import job_metrics
from tests.flink_scoring.harness import ScoringJob, digit, make_job, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

HOUR = 3_600_000
WITHIN = 120
LABELS = """
[labels]
topic = "{name}.labels"
within_seconds = {within}
window_seconds = 1
"""

Message = tuple[bytes | None, bytes | None, int]


@pytest.fixture
def job(stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    name = f"digits-{uuid.uuid4().hex[:8]}"
    made = make_job(stack, pipeline_text(name) + LABELS.format(name=name, within=WITHIN), tmp_path)
    made.create_source()
    yield made
    made.cancel()


def labels_topic(job: ScoringJob) -> str:
    assert job.pipeline.labels is not None
    return job.pipeline.labels.topic


def send(job: ScoringJob, topic: str, messages: list[Message]) -> None:
    """Messages with their Kafka timestamps in milliseconds."""
    producer = KafkaProducer(bootstrap_servers=job.kafka, acks="all")
    with contextlib.closing(producer):
        for key, value, timestamp in messages:
            producer.send(topic, key=key, value=value, timestamp_ms=timestamp)
        producer.flush(timeout=60)


def accuracy(job: ScoringJob, until: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The accuracy topic from its beginning, until a condition holds of it."""
    consumer = KafkaConsumer(
        job.pipeline.accuracy_topic,
        bootstrap_servers=job.kafka,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    found: list[dict[str, Any]] = []
    end = time.monotonic() + 120
    with contextlib.closing(consumer):
        while not until(found):
            assert time.monotonic() < end, f"only {found}"
            for messages in consumer.poll(timeout_ms=200).values():
                found += [json.loads(message.value) for message in messages]
    return found


def labelled(records: list[dict[str, Any]]) -> int:
    return sum(record["labelled"] for record in records)


def begin(job: ScoringJob, model: bytes) -> int:
    """Submit the job; a moment an hour ago, in milliseconds, so that what closes the time is now."""
    ensure_topics(job.kafka, {labels_topic(job): 1})
    job.promote(model)
    job.submit()
    return int(time.time() * 1000) - HOUR


def test_every_label_is_counted_once_for_the_version_it_is_about_whatever_happens(
    job: ScoringJob, constant_model: Callable[..., bytes]
) -> None:
    then = begin(job, constant_model(1))
    source = job.pipeline.source.topic
    send(job, source, [(f"a{n}".encode(), digit(n), then + n) for n in range(100)])
    job.read(lambda output: len(output.seen) == 100)
    job.promote(constant_model(2))
    wait_for(lambda: _serves(job, 2), "the second version")
    send(job, source, [(f"b{n}".encode(), digit(n), then + n) for n in range(100)])
    output = job.read(lambda output: len(output.seen) == 200)
    assert {record.model.version for key, record in output.scored.items() if key[:1] == b"b"} == {2}

    soon = then + 30_000
    truth = [
        (key, json.dumps({"actual_y": int(key[1:]) % 10}).encode(), soon) for key in sorted(output.scored)
    ]
    send(job, labels_topic(job), truth[:150])
    accuracy(job, lambda found: labelled(found) == 150)
    job.stack.kill_part("taskmanager")
    send(job, labels_topic(job), truth[150:])
    job.stack.start_part("taskmanager")
    send(
        job,
        labels_topic(job),
        [
            (b"a1", b"no class", soon),
            (b"a1", b"1", then + WITHIN * 1000 + 10_000),
            (b"nobody", b"1", soon),
            (None, b"1", soon),
        ],
    )
    found = accuracy(job, lambda found: labelled(found) >= 200)
    now = int(time.time() * 1000)
    send(job, source, [(b"last", digit(2), now)])
    job.read(lambda output: b"last" in output.scored)
    send(job, labels_topic(job), [(b"last", b"2", now)])
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
        assert abs((datetime.now(UTC) - began).total_seconds()) < 300
    assert totals == {(1, "labelled"): 100, (1, "right"): 10, (2, "labelled"): 101, (2, "right"): 11}
    windows = Counter((record["window_start"], record["version"]) for record in found)
    assert set(windows.values()) == {1}, "a window of a version has one record"
    # counters begin anew with a task manager; these three labels were held until the time was over
    wait_for(lambda: job_metrics(job).get("labels_unmatched") == 3, "the labels without a prediction")
    shown = job_metrics(job)
    assert shown["labels_malformed"] == 1
    assert shown["label_newest_generation"] == 2
    assert job.plan().count("ferry_score(") == 1, "Flink would score every record twice"
    assert job.plan().count("ferry_judge(") == 1, "Flink would count every label twice"


def test_a_record_that_others_wrote_among_the_scored_ones_is_no_prediction_and_ends_nothing(
    job: ScoringJob, constant_model: Callable[..., bytes]
) -> None:
    then = begin(job, constant_model(1))
    send(job, job.pipeline.source.topic, [(b"ours", digit(1), then)])
    job.read_all(1)
    foreign = [(b"theirs", b'{"prediction": 1}', then), (b"theirs", b'{"prediction": 1, "model": {}}', then)]
    send(job, job.pipeline.require_scoring().topic, [*foreign, (b"theirs", b"no JSON", then)])
    send(job, labels_topic(job), [(b"theirs", b"1", then + 1000), (b"ours", b"1", then + 1000)])
    [found] = accuracy(job, lambda found: labelled(found) >= 1)
    assert (found["version"], found["generation"], found["labelled"], found["right"]) == (1, 1, 1, 1)
    assert job.restarts() == 0


def _serves(job: ScoringJob, version: int) -> bool:
    return any(report.version == version for beat in job.registry.consumers.all() for report in beat.models)


def test_a_scored_record_keeps_kafkas_timestamp_and_a_dead_letter_has_its_own(
    job: ScoringJob, constant_model: Callable[..., bytes]
) -> None:
    ensure_topics(job.kafka, {labels_topic(job): 1})
    job.promote(constant_model(1))
    job.submit()
    now = int(time.time() * 1000)
    send(
        job,
        job.pipeline.source.topic,
        [
            (b"old", digit(1), now - HOUR),
            (b"of 1970", digit(1), 5),
            (b"ahead", digit(1), now + HOUR // 2),
            (b"dead", b"{", now - HOUR),
        ],
    )
    output = job.read_all(4)
    times = _timestamps(job)
    assert (times[b"old"], times[b"of 1970"]) == (now - HOUR, 5)
    written = time.time() * 1000
    assert now - 60_000 < times[b"ahead"] <= written, "a broker may refuse a moment that is yet to come"
    assert now - 60_000 < output.dead[b"dead"].timestamp <= written
    assert job.restarts() == 0


def _timestamps(job: ScoringJob) -> dict[bytes, int]:
    consumer = KafkaConsumer(
        job.pipeline.require_scoring().topic,
        bootstrap_servers=job.kafka,
        group_id=None,
        auto_offset_reset="earliest",
    )
    found: dict[bytes, int] = {}
    with contextlib.closing(consumer):
        end = time.monotonic() + 30
        while len(found) < 3 and time.monotonic() < end:
            for messages in consumer.poll(timeout_ms=200).values():
                found |= {message.key: message.timestamp for message in messages}
    return found


def test_a_topic_of_labels_that_is_not_there_is_told_before_anything_runs(job: ScoringJob) -> None:
    result = job.run()
    lines = [line for line in (result.stdout + result.stderr).splitlines() if "error: " in line]
    assert len(lines) == 1
    assert labels_topic(job) in lines[0]
    assert "--create --topic" in lines[0]
