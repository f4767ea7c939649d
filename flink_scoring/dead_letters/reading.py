"""Reading topics as they stand: from where one likes to where they ended when it began, committed only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from ferryline.flink_scoring.dead_letters.errors import kafka_faults
from ferryline.flink_scoring.dead_letters.letters import StoredLetter, store_letter
from ferryline.streams.errors import BrokerUnreachableError
from ferryline.streams.kafka import admin_client, bootstrap_list, topic_partitions

_QUIET_SECONDS = 30.0
_POLL_MS = 500


class TopicReader:
    """A consumer that reads parts of topics and stands in no group's way.

    Args:
        bootstrap: `host:port[,host:port…]`.
        group: whose committed offsets are asked for; it is never joined.
        batch: the most records of one answer.
    """

    def __init__(self, bootstrap: str, *, group: str | None = None, batch: int = 500) -> None:
        self._bootstrap = bootstrap
        with kafka_faults(bootstrap):
            self._consumer = KafkaConsumer(
                bootstrap_servers=bootstrap_list(bootstrap),
                group_id=group,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                max_poll_records=batch,
            )

    def spans(self, topic: str, starts: Mapping[int, int] | None = None) -> dict[TopicPartition, range]:
        """The offsets to read by partition: up to what is committed now, from `starts` or the beginning.

        Raises:
            UnknownTopicError: there is no such topic.
        """
        parts = [TopicPartition(topic, number) for number in topic_partitions(self._bootstrap, topic)]
        with kafka_faults(self._bootstrap):
            first = self._consumer.beginning_offsets(parts)
            ends = self._consumer.end_offsets(parts)
        wanted = starts or {}
        spans = {}
        for part in parts:
            start = wanted.get(part.partition, 0)
            # beyond its end, the topic was made anew: nothing of it was read
            begin = max(first[part], start if start <= ends[part] else 0)
            if begin < ends[part]:
                spans[part] = range(begin, ends[part])
        return spans

    def batches(self, spans: Mapping[TopicPartition, range]) -> Iterator[list[Any]]:
        """The messages in `spans`, in order within a partition; the consumer is this reading's alone.

        Raises:
            BrokerUnreachableError: nothing came for half a minute.
        """
        with kafka_faults(self._bootstrap):
            self._consumer.assign(list(spans))
            for part, span in spans.items():
                self._consumer.seek(part, span.start)
        heard = time.monotonic()
        while any(self._position(part) < span.stop for part, span in spans.items()):
            with kafka_faults(self._bootstrap):
                found = self._consumer.poll(timeout_ms=_POLL_MS)
            if found:
                heard = time.monotonic()
                yield [
                    message
                    for part, messages in found.items()
                    for message in messages
                    if message.offset < spans[part].stop
                ]
                heard = time.monotonic()
            elif time.monotonic() - heard > _QUIET_SECONDS:
                raise BrokerUnreachableError(self._bootstrap, "it stopped answering")

    def letters(self, spans: Mapping[TopicPartition, range]) -> Iterator[list[StoredLetter]]:
        """The same as letters."""
        for messages in self.batches(spans):
            yield [store_letter(message) for message in messages]

    def at(self, topic: str, partition: int, offset: int) -> Any | None:
        """The message at exactly that place; None where it is gone, or never was."""
        part = TopicPartition(topic, partition)
        span = self.spans(topic).get(part, range(0))
        if offset not in span:
            return None
        for messages in self.batches({part: range(offset, offset + 1)}):
            return messages[0] if messages and messages[0].offset == offset else None
        return None

    def committed(self, topic: str) -> dict[int, int]:
        """The offsets that the group has committed, by partition."""
        with kafka_faults(self._bootstrap):
            found = {
                number: self._consumer.committed(TopicPartition(topic, number))
                for number in topic_partitions(self._bootstrap, topic)
            }
        return {number: offset for number, offset in found.items() if offset is not None}

    @property
    def group_metadata(self) -> Any:
        """What a transaction needs to commit offsets for the group."""
        return self._consumer.group_metadata()

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close(autocommit=False)

    def _position(self, part: TopicPartition) -> int:
        with kafka_faults(self._bootstrap):
            position: int | None = self._consumer.position(part)
        return position or 0


@contextmanager
def open_reader(bootstrap: str, *, group: str | None = None, batch: int = 500) -> Iterator[TopicReader]:
    """A reader that is closed in the end."""
    reader = TopicReader(bootstrap, group=group, batch=batch)
    try:
        yield reader
    finally:
        reader.close()


def topic_id(bootstrap: str, topic: str) -> str:
    """The id that a topic keeps for its life; another of the same name has another one."""
    with admin_client(bootstrap) as client:
        return str(client.describe_topics([topic])[0]["topic_id"])


def topic_exists(bootstrap: str, topic: str) -> bool:
    """Whether the broker has it."""
    with admin_client(bootstrap) as client:
        return topic in client.list_topics()
