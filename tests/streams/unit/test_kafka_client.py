"""What we ask of the Kafka client that is installed with us."""

from __future__ import annotations

import uuid
from types import SimpleNamespace

import pytest
from kafka import KafkaConsumer, codec
from kafka.cluster import ClusterMetadata
from kafka.record import util

from ferryline.streams.kafka import TopicDescription, topic_in_metadata


def test_checksums_are_counted_by_native_code() -> None:
    # in Python, 5 MB take most of a second, and a large record holds up all that follow
    assert util.crc32c_c is not None


def test_every_compression_can_be_read() -> None:
    known = {
        "gzip": codec.has_gzip(),
        "lz4": codec.has_lz4(),
        "snappy": codec.has_snappy(),
        "zstd": codec.has_zstd(),
    }
    assert all(known.values()), known


def test_the_consumer_keeps_its_metadata_where_it_is_read() -> None:
    assert "_cluster" in KafkaConsumer.__init__.__code__.co_names
    assert callable(ClusterMetadata.topic_id)


@pytest.mark.parametrize(
    ("ident", "partitions", "expected"),
    [
        (uuid.UUID(int=15), {1, 0}, TopicDescription(f"{15:032x}", (0, 1))),
        (uuid.UUID(int=0), {0}, TopicDescription("", (0,))),
        (None, {0}, TopicDescription("", (0,))),
        (uuid.UUID(int=15), None, None),
        (None, set(), None),
    ],
)
def test_what_metadata_says_of_a_topic(
    ident: uuid.UUID | None, partitions: set[int] | None, expected: TopicDescription | None
) -> None:
    cluster = SimpleNamespace(topic_id=lambda _: ident, partitions_for_topic=lambda _: partitions)
    assert topic_in_metadata(SimpleNamespace(_cluster=cluster), "t") == expected
