import uuid

import pytest

from ferryline.deploy.stack.local import Addresses
from ferryline.registry.errors import UsageError
from ferryline.streams.errors import BrokerRefusedError, BrokerUnreachableError, UnknownTopicError
from ferryline.streams.kafka import (
    admin_client,
    describe_topic,
    ensure_topics,
    reach_kafka,
    topic_id,
    topic_partitions,
)
from tests.support.waiting import wait_for


def test_topics_are_made_once_and_keep_what_they_have(kafka: Addresses) -> None:
    reach_kafka(kafka.kafka)
    a, b, c = (f"edge-{letter}-{uuid.uuid4().hex}" for letter in "abc")
    assert ensure_topics(kafka.kafka, {a: 3, b: 1}) == [a, b]
    assert ensure_topics(kafka.kafka, {a: 5, c: 1}) == [c]
    assert topic_partitions(kafka.kafka, a) == [0, 1, 2]


def test_a_topic_made_anew_has_another_id(kafka: Addresses) -> None:
    name = f"edge-anew-{uuid.uuid4().hex}"
    ensure_topics(kafka.kafka, {name: 2})
    first = describe_topic(kafka.kafka, name)
    assert (len(first.id), first.partitions) == (32, (0, 1))
    assert topic_id(kafka.kafka, name) == first.id
    with admin_client(kafka.kafka) as client:
        client.delete_topics([name])
        wait_for(lambda: name not in client.list_topics(), "the topic's deletion")
    ensure_topics(kafka.kafka, {name: 1})
    assert describe_topic(kafka.kafka, name).id != first.id


def test_an_unknown_topic_is_named_with_what_to_do(kafka: Addresses) -> None:
    with pytest.raises(UnknownTopicError, match=r"no topic 'edge-nowhere'; create it with"):
        topic_partitions(kafka.kafka, "edge-nowhere")


def test_what_the_broker_refuses_is_told_in_one_line(kafka: Addresses) -> None:
    with pytest.raises(BrokerRefusedError, match="will not create topic 'a b'") as caught:
        ensure_topics(kafka.kafka, {"a b": 1})
    assert "CreateTopicsRequest" not in str(caught.value)


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:1", "nobody.invalid:9092", "127.0.0.1:1,127.0.0.1:2"])
def test_a_broker_that_is_not_there_is_named(bootstrap: str) -> None:
    with pytest.raises(BrokerUnreachableError, match=f"Kafka at {bootstrap} cannot be reached"):
        reach_kafka(bootstrap, timeout=1)


def test_one_broker_of_several_is_enough(kafka: Addresses) -> None:
    reach_kafka(f"127.0.0.1:1,{kafka.kafka}")


@pytest.mark.parametrize("bootstrap", ["rubbish", "host:", ":9092", "host:port"])
def test_what_is_no_address_is_a_usage_error(bootstrap: str) -> None:
    with pytest.raises(UsageError, match="write host:port"):
        reach_kafka(bootstrap, timeout=1)
