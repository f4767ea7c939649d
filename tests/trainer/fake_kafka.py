"""A topic and a client of it in memory, as far as `KafkaSource` uses kafka-python's consumer."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import IllegalStateError, KafkaTimeoutError, LogTruncationError, OffsetOutOfRangeError

from ferryline.streams.errors import BrokerUnreachableError, UnknownTopicError
from ferryline.streams.kafka import TopicDescription
from ferryline.streams.pipeline import SourceSpec
from ferryline.trainer.source import KafkaSource

TOPIC = "t"
TIMESTAMP = 1_767_225_600_000


@dataclass
class FakeTopic:
    """A topic that can be made anew, cut, cleaned and given partitions.

    Attributes:
        logs: by partition, the values by offset; a missing offset is a marker, or an aborted record.
        first: by partition, where its log starts.
        end: by partition, where it ends.
        id: of the topic; None where the broker knows no ids.
    """

    logs: dict[int, dict[int, bytes]] = field(default_factory=lambda: {0: {}})
    first: dict[int, int] = field(default_factory=lambda: {0: 0})
    end: dict[int, int] = field(default_factory=lambda: {0: 0})
    id: uuid.UUID | None = field(default_factory=uuid.uuid4)
    there: bool = True

    def append(self, values: Iterable[bytes], partition: int = 0) -> None:
        for value in values:
            self.logs[partition][self.end[partition]] = value
            self.end[partition] += 1

    def abort(self, count: int, partition: int = 0) -> None:
        """Records of an aborted transaction, and their marker."""
        self.end[partition] += count + 1

    def add_partition(self) -> int:
        number = len(self.logs)
        self.logs[number], self.first[number], self.end[number] = {}, 0, 0
        return number

    def remove_before(self, offset: int, partition: int = 0) -> None:
        """What retention does."""
        self.first[partition] = offset

    def cut(self, end: int, partition: int = 0) -> None:
        """What an unclean election does."""
        self.logs[partition] = {at: value for at, value in self.logs[partition].items() if at < end}
        self.end[partition] = end

    def make_anew(self, partitions: int = 1) -> None:
        self.logs = {number: {} for number in range(partitions)}
        self.first = dict.fromkeys(self.logs, 0)
        self.end = dict.fromkeys(self.logs, 0)
        self.id = uuid.uuid4() if self.id else None

    def described(self) -> TopicDescription:
        if not self.there:
            raise UnknownTopicError(TOPIC, "memory")
        return TopicDescription(self.id.hex if self.id else "", tuple(sorted(self.logs)))


class FakeMetadata:
    """kafka-python's `ClusterMetadata`."""

    def __init__(self, topic: FakeTopic) -> None:
        self._topic = topic

    def topic_id(self, _name: str) -> uuid.UUID | None:
        return self._topic.id

    def partitions_for_topic(self, _name: str) -> set[int] | None:
        return set(self._topic.logs) if self._topic.there else None


class FakeConsumer:
    """kafka-python's `KafkaConsumer` with `auto_offset_reset="none"`."""

    def __init__(self, topic: FakeTopic) -> None:
        self._topic = topic
        self._cluster = FakeMetadata(topic)
        self._at: dict[TopicPartition, int] = {}
        self._assigned: set[TopicPartition] = set()
        self.truncated: dict[TopicPartition, int | None] = {}
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.closed = False

    def assign(self, parts: list[TopicPartition]) -> None:
        self._assigned = set(parts)
        self._at = {part: self._at[part] for part in parts if part in self._at}

    def seek(self, part: TopicPartition, offset: int) -> None:
        self._at[part] = offset

    def beginning_offsets(self, parts: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return self._bounds(parts, self._topic.first)

    def end_offsets(self, parts: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return self._bounds(parts, self._topic.end)

    def highwater(self, part: TopicPartition) -> int | None:
        if part not in self._assigned:
            raise IllegalStateError(f"{part} is not assigned")
        return self._topic.end.get(part.partition) if part in self._at else None

    def commit_async(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        self.committed |= offsets

    def close(self, **_options: Any) -> None:
        self.closed = True

    def poll(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        if self.truncated:
            known = {
                part: None if offset is None else OffsetAndMetadata(offset, "", 1)
                for part, offset in self.truncated.items()
            }
            self.truncated = {}
            raise LogTruncationError(known)
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        for part, position in self._at.items():
            log = self._topic.logs.get(part.partition)
            if log is None or not self._topic.there:
                continue
            if not self._topic.first[part.partition] <= position <= self._topic.end[part.partition]:
                raise OffsetOutOfRangeError({part: position})
            room = max_records - sum(map(len, found.values()))
            taken = [at for at in sorted(log) if at >= position][:room]
            if taken:
                found[part] = [_record(part, at, log[at]) for at in taken]
                self._at[part] = taken[-1] + 1
        return found

    def _bounds(self, parts: list[TopicPartition], offsets: Mapping[int, int]) -> dict[TopicPartition, int]:
        if not self._topic.there:
            raise KafkaTimeoutError
        return {part: offsets[part.partition] for part in parts}


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, _level: str) -> Any:
        return lambda event, **fields: self.events.append((event, fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@dataclass
class Reader:
    """A source of a fake topic, with its clock and its log."""

    topic: FakeTopic
    spec: SourceSpec
    log: Log = field(default_factory=Log)
    now: float = 0.0
    answer: TopicDescription | None = None
    down: bool = False

    def __post_init__(self) -> None:
        self.consumer = FakeConsumer(self.topic)
        self.source = KafkaSource(
            "memory:1",
            self.spec,
            "group",
            log=self.log,
            connect=lambda: self.consumer,
            describe=self.described,
            clock=lambda: self.now,
            pause=self.wait,
        )

    def described(self) -> TopicDescription:
        if self.down:
            raise BrokerUnreachableError("memory:1", "it is down")
        return self.answer or self.topic.described()

    @contextmanager
    def answering(self, answer: TopicDescription) -> Iterator[None]:
        """A broker that says so when it is asked about the topic."""
        self.answer = answer
        yield
        self.answer = None

    def wait(self, seconds: float) -> None:
        self.now += seconds


def _record(part: TopicPartition, offset: int, value: bytes) -> ConsumerRecord:
    time = TIMESTAMP + offset
    return ConsumerRecord(*part, 0, offset, time, 0, None, value, [], None, -1, len(value), -1)


def pair(label: int, *numbers: float) -> bytes:
    """A record of two numbers and a class."""
    return orjson.dumps({"x": list(numbers), "y": label})
