"""Delayed labels of a scoring job: send them, and read how often the model was right."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer

from ferryline.streams.kafka import ensure_topics
from tests.flink_scoring.flink_metrics import job_metrics
from tests.flink_scoring.harness import ScoringJob
from tests.support.waiting import DEADLINE, wait_for

WITHIN = 120
"""Seconds that a label may take."""

_LABELS = """
[labels]
topic = "{name}.labels"
within_seconds = {within}
window_seconds = 1
"""

Message = tuple[bytes | None, bytes | None, int]


def labels_toml(name: str) -> str:
    """The lines that give a pipeline delayed labels."""
    return _LABELS.format(name=name, within=WITHIN)


def labels_topic(job: ScoringJob) -> str:
    assert job.pipeline.labels is not None
    return job.pipeline.labels.topic


def create_labels(job: ScoringJob) -> None:
    ensure_topics(job.kafka, {labels_topic(job): 1})


def send_at(job: ScoringJob, topic: str, messages: list[Message]) -> None:
    """Messages with their Kafka timestamps in milliseconds."""
    producer = KafkaProducer(bootstrap_servers=job.kafka, acks="all")
    with contextlib.closing(producer):
        for key, value, timestamp in messages:
            producer.send(topic, key=key, value=value, timestamp_ms=timestamp)
        producer.flush(timeout=DEADLINE)


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

    def is_met() -> bool:
        for messages in consumer.poll(timeout_ms=200).values():
            found.extend(json.loads(message.value) for message in messages)
        return until(found)

    with contextlib.closing(consumer):
        try:
            wait_for(is_met, "the accuracy", pause=0)
        except AssertionError as error:
            raise AssertionError(f"{error}; found {found}; {job.diagnosis()}; {job_metrics(job)}") from error
    return found


def labelled(records: list[dict[str, Any]]) -> int:
    return sum(record["labelled"] for record in records)
