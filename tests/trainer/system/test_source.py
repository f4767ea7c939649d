"""What the edge to Kafka reads, whoever wrote it."""

from __future__ import annotations

import uuid

import pytest
from kafka import KafkaProducer

from ferryline.deploy.stack.local import Addresses
from ferryline.streams.kafka import ensure_topics
from ferryline.streams.pipeline import Pipeline
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.positions import Placement
from ferryline.trainer.source import KafkaSource
from tests.support.waiting import DEADLINE, wait_for
from tests.trainer.fake_kafka import Log


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_records_are_read_whatever_they_were_compressed_with(
    kafka: Addresses, digits: Pipeline, codec: str
) -> None:
    spec = digits.source.model_copy(update={"topic": f"compressed-{codec}-{uuid.uuid4().hex}"})
    ensure_topics(kafka.kafka, {spec.topic: 1})
    values = [f"record {number}".encode() * 20 for number in range(200)]
    producer = KafkaProducer(bootstrap_servers=kafka.kafka, compression_type=codec, linger_ms=50)
    for value in values:
        producer.send(spec.topic, value=value)
    producer.flush(timeout=DEADLINE)
    producer.close(timeout=DEADLINE)

    source = KafkaSource(kafka.kafka, spec, f"reads-{spec.topic}")
    source.open(Placement())
    found: list[bytes | None] = []

    def all_came() -> bool:
        batch = source.poll(timeout=0.5, limit=1000)
        found.extend(batch.values if isinstance(batch, FetchedBatch) else [])
        return len(found) >= len(values)

    try:
        wait_for(all_came, "every record")
    finally:
        source.close()
    assert found == values


def test_an_aborted_transaction_is_neither_read_nor_told_to_be_gone(
    kafka: Addresses, digits: Pipeline
) -> None:
    spec = digits.source.model_copy(update={"topic": f"aborted-{uuid.uuid4().hex}"})
    ensure_topics(kafka.kafka, {spec.topic: 1})
    producer = KafkaProducer(bootstrap_servers=kafka.kafka, transactional_id=spec.topic)
    producer.init_transactions()
    for values, end in (
        ([b"first"], producer.commit_transaction),
        ([b"aborted"] * 11, producer.abort_transaction),
        ([b"last"], producer.commit_transaction),
    ):
        producer.begin_transaction()
        for value in values:
            producer.send(spec.topic, value=value)
        producer.flush(timeout=DEADLINE)
        end()
    producer.close(timeout=DEADLINE)

    log = Log()
    source = KafkaSource(kafka.kafka, spec, f"reads-{spec.topic}", log=log)
    source.open(Placement())
    found: list[bytes | None] = []
    offsets: list[int] = []

    def all_came() -> bool:
        batch = source.poll(timeout=0.5, limit=1000)
        if isinstance(batch, FetchedBatch):
            found.extend(batch.values)
            offsets.extend(batch.offsets)
        return len(found) >= 2

    try:
        wait_for(all_came, "what was committed")
    finally:
        source.close()
    assert found == [b"first", b"last"]
    assert offsets[1] > offsets[0] + 11
    assert log.events == []
