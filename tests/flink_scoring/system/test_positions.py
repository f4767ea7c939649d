"""Where a job begins to read, of a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from kafka import KafkaProducer

from ferryline.deploy.stack.local import Addresses
from ferryline.flink_scoring.options import JobOptions
from ferryline.flink_scoring.positions import Start
from ferryline.flink_scoring.preparation import keep_positions, prepare, resolve_positions
from ferryline.streams.kafka import admin_client, ensure_topics
from ferryline.streams.pipeline import Pipeline


@pytest.fixture
def options(kafka: Addresses, digits_pipeline: Callable[[str], Pipeline]) -> JobOptions:
    pipeline = digits_pipeline(f"positions-{uuid.uuid4().hex[:8]}")
    ensure_topics(kafka.kafka, {pipeline.source.topic: 2})
    return JobOptions(pipeline, "file:///there", kafka.kafka, 1, 5.0, start=Start.LATEST)


def send(
    options: JobOptions, count: int, *, partition: int = 0, transaction: str | None = None
) -> KafkaProducer:
    producer = KafkaProducer(bootstrap_servers=options.kafka, transactional_id=transaction)
    if transaction:
        producer.init_transactions()
        producer.begin_transaction()
    for _ in range(count):
        producer.send(options.pipeline.source.topic, value=b"", partition=partition)
    producer.flush()
    return producer


def test_what_is_chosen_at_the_first_start_is_kept_for_the_next(options: JobOptions) -> None:
    topic = options.pipeline.source.topic
    send(options, 3).close()
    starts = prepare(options).starts
    assert starts[topic].offsets == {0: 3, 1: 0}
    assert starts[topic].uncommitted == {0, 1}
    keep_positions(options.kafka, starts.values())
    send(options, 4).close()
    send(options, 2, partition=1).close()
    again = JobOptions(options.pipeline, options.store, options.kafka, 1, 5.0)
    found = resolve_positions(again, topic, options.name)
    assert found.offsets == {0: 3, 1: 0}
    assert not found.uncommitted

    keep_positions(
        options.kafka, prepare(options).starts.values()
    )  # at the end, which was not asked to be kept
    with admin_client(options.kafka) as client:
        client.create_partitions({topic: 3})
    send(options, 1, partition=2).close()
    found = resolve_positions(again, topic, options.name)
    assert found.offsets == {0: 3, 1: 0, 2: 0}
    assert found.uncommitted == {2}


def test_the_latest_is_before_the_records_of_a_transaction_that_is_open(options: JobOptions) -> None:
    topic = options.pipeline.source.topic
    send(options, 1).close()
    open_one = send(options, 5, transaction=topic)
    assert resolve_positions(options, topic, options.name).offsets == {0: 1, 1: 0}
    open_one.commit_transaction()
    open_one.close()
    assert resolve_positions(options, topic, options.name).offsets == {0: 7, 1: 0}
