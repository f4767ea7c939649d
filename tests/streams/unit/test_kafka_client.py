"""What we ask of the Kafka client that is installed with us."""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaConsumer, codec
from kafka.cluster import ClusterMetadata
from kafka.record import util

from ferryline.streams import kafka
from ferryline.streams.errors import UnknownTopicError
from ferryline.streams.kafka import TopicDescription, describe_topic, topic_in_metadata


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


def described(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> TopicDescription:
    client = SimpleNamespace(list_topics=lambda: ["t"], describe_topics=lambda _: [answer])
    monkeypatch.setattr(kafka, "admin_client", lambda *_, **__: nullcontext(client))
    return describe_topic("broker:9092", "t")


def test_a_broker_from_before_topic_ids_describes_a_topic_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = {"name": "t", "error_code": 0, "partitions": [{"partition_index": 0}]}
    assert described(monkeypatch, answer) == TopicDescription("", (0,))


def test_a_topic_that_goes_while_it_is_asked_for_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"name": "t", "error_code": 3, "topic_id": uuid.UUID(int=0), "partitions": []}
    with pytest.raises(UnknownTopicError):
        described(monkeypatch, answer)
