"""Both output topics of a job, read once: a reader goes on from where it is."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition

from ferryline.streams.errors import MalformedRecordError, UnknownTopicError
from ferryline.streams.kafka import topic_partitions
from ferryline.streams.pipeline import Pipeline
from ferryline.streams.scored import ScoredRecord, decode_scored
from tests.support.waiting import wait_for

LARGEST = 8_000_000
SILENCE = 30.0
"""A consumer that gets nothing for so long is replaced: kafka-python's can lose its place while it starts."""


@dataclass
class Output:
    """What both output topics hold, by the key of the record.

    Attributes:
        scored: the newest answer.
        answers: all answers, in the order of their partition.
        written: the newest message of the scored topic.
        dead: the newest dead letter.
        seen: the key of each message of either topic.
        versions: which scored anything.
        newest: the highest generation that scored anything.
    """

    scored: dict[bytes, ScoredRecord] = field(default_factory=dict)
    answers: defaultdict[bytes, list[ScoredRecord]] = field(default_factory=lambda: defaultdict(list))
    written: dict[bytes, Any] = field(default_factory=dict)
    dead: dict[bytes, Any] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)
    newest: int = 0

    def add(self, message: Any, dead_letters: str) -> None:
        """Take up one message."""
        self.seen.append(message.key)
        if message.topic == dead_letters:
            self.dead[message.key] = message
            return
        try:
            record = decode_scored(message.value)
        except MalformedRecordError:  # a test writes among them
            return
        self.written[message.key] = message
        self.scored[message.key] = record
        self.answers[message.key].append(record)
        self.versions.add(record.model.version)
        self.newest = max(self.newest, record.model.generation)


class OutputReader:
    """Reads both output topics of a pipeline from their beginning.

    Args:
        kafka: bootstrap servers.
        pipeline: whose output.
        committed: leave out what is not committed.
    """

    def __init__(self, kafka: str, pipeline: Pipeline, *, committed: bool) -> None:
        self.output = Output()
        self._kafka = kafka
        self._scoring = pipeline.require_scoring()
        self._committed = committed
        self._consumer: Any = None
        self._next: dict[TopicPartition, int] = {}
        self._heard = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the broker."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def poll(self) -> Output:
        """All that was read so far, and what there is by now."""
        consumer = self._opened()
        for place, messages in consumer.poll(timeout_ms=200).items():
            for message in messages:
                self.output.add(message, self._scoring.dead_letters)
            self._next[place] = messages[-1].offset + 1
            self._heard = time.monotonic()
        if time.monotonic() - self._heard > SILENCE:
            self.close()
        return self.output

    def ends(self) -> dict[TopicPartition, int]:
        """The offset behind the last message of each partition, or behind the last committed one."""
        consumer = self._opened()
        return dict(consumer.end_offsets(list(self._next)))

    def read_to(self, ends: dict[TopicPartition, int]) -> Output:
        """All up to these offsets."""

        def is_there() -> bool:
            # what aborted transactions and their marks take up is passed without a message
            self.poll()
            consumer = self._opened()
            return all(consumer.position(place) >= end for place, end in ends.items())

        wait_for(is_there, "the output topics to be read to their end", pause=0)
        return self.output

    def read_to_end(self) -> Output:
        """All that there is."""
        self._opened()
        return self.read_to(self.ends())

    def _opened(self) -> Any:
        if self._consumer is None:
            for place in wait_for(self._places, "the output topics"):
                self._next.setdefault(place, 0)
            self._consumer = KafkaConsumer(
                bootstrap_servers=self._kafka,
                group_id=None,
                isolation_level="read_committed" if self._committed else "read_uncommitted",
                max_partition_fetch_bytes=2 * LARGEST,
            )
            self._consumer.assign(list(self._next))
            for place, offset in self._next.items():
                self._consumer.seek(place, offset)
            self._heard = time.monotonic()
        return self._consumer

    def _places(self) -> list[TopicPartition]:
        """The partitions of both topics; none before the job has made them."""
        topics = (self._scoring.topic, self._scoring.dead_letters)
        try:
            return [
                TopicPartition(topic, number)
                for topic in topics
                for number in topic_partitions(self._kafka, topic)
            ]
        except UnknownTopicError:
            return []
