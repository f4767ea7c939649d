"""What the edge to Kafka reads, whoever wrote it."""

from __future__ import annotations

import time

import pytest
from kafka import KafkaProducer

from deploy.stack.local import Addresses
from streams.kafka import ensure_topics
from streams.pipeline import Pipeline
from trainer.source import KafkaSource

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_records_are_read_whatever_they_were_compressed_with(
    kafka: Addresses, digits: Pipeline, codec: str
) -> None:
    spec = digits.source.model_copy(update={"topic": f"compressed-{codec}"})
    ensure_topics(kafka.kafka, {spec.topic: 1})
    values = [f"record {number}".encode() * 20 for number in range(200)]
    producer = KafkaProducer(bootstrap_servers=kafka.kafka, compression_type=codec, linger_ms=50)
    for value in values:
        producer.send(spec.topic, value=value)
    producer.flush(timeout=60)
    producer.close(timeout=10)

    source = KafkaSource(kafka.kafka, spec, f"reads-{codec}")
    source.open({})
    found: list[bytes | None] = []
    end = time.monotonic() + 60
    try:
        while len(found) < len(values):
            assert time.monotonic() < end, f"{len(found)} of {len(values)} came"
            batch = source.poll(timeout=0.5, limit=1000)
            found += batch.values if batch else []
    finally:
        source.close()
    assert found == values
