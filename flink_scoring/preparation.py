"""What is settled before a job is submitted: options, what topics take, and where reading begins in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog
from kafka import IsolationLevel, OffsetAndMetadata, OffsetSpec, TopicPartition
from kafka.errors import AuthorizationError, KafkaError, NoError

from ferryline.flink_scoring.labelling.statements import labels_group
from ferryline.flink_scoring.options import JobOptions
from ferryline.flink_scoring.positions import Start, StartPositions, TopicOffsets, choose_positions
from ferryline.flink_scoring.topics import OutputLimits, prepare_topics
from ferryline.streams.errors import BrokerRefusedError, BrokerUnreachableError
from ferryline.streams.kafka import admin_client, brief, topic_partitions

_PATIENCE = 30.0
_PAUSE = 0.2

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedPipeline:
    """One pipeline of a job, ready to be submitted.

    Attributes:
        options: what it is told.
        limits: what its output topics take.
        starts: where it begins in the topics that it reads, by topic.
    """

    options: JobOptions
    limits: OutputLimits
    starts: Mapping[str, StartPositions]


def prepare(options: JobOptions) -> PreparedPipeline:
    """Create the output topics that do not exist, and choose where to begin in those that are read.

    Raises:
        UnknownTopicError: the source topic, or that of the labels, does not exist.
        BrokerUnreachableError: no broker answers.
        BrokerRefusedError: an output topic cannot be created, or rights are missing on what is read.
    """
    limits = prepare_topics(options.kafka, options.pipeline)
    groups = {options.pipeline.source.topic: options.name}
    if options.pipeline.labels is not None:
        groups |= dict.fromkeys((options.pipeline.labels.topic, options.scoring.topic), labels_group(options))
    starts = {topic: resolve_positions(options, topic, group) for topic, group in groups.items()}
    return PreparedPipeline(options, limits, starts)


def resolve_positions(options: JobOptions, topic: str, group: str) -> StartPositions:
    """Where the job begins to read a topic as it stands now.

    Raises:
        UnknownTopicError: there is no such topic.
        BrokerUnreachableError: no broker answers.
        BrokerRefusedError: rights are missing on the topic or the group.
    """
    positions = choose_positions(
        topic,
        group,
        read_offsets(options.kafka, topic, group),
        start=options.start,
        fallback=Start(options.pipeline.source.start),
    )
    for number, offset in positions.unreadable.items():
        log.warning(
            "the group's offset is not there any more, so the oldest record that is left comes first",
            topic=topic,
            partition=number,
            group=group,
            offset=offset,
            begins_at=positions.offsets[number],
        )
    return positions


def read_offsets(bootstrap: str, topic: str, group: str) -> TopicOffsets:
    """What the broker says of a topic and of a group's offsets in it.

    Raises:
        UnknownTopicError: there is no such topic.
        BrokerUnreachableError: no broker answers.
        BrokerRefusedError: rights are missing on the topic or the group.
    """
    parts = [TopicPartition(topic, number) for number in topic_partitions(bootstrap, topic)]

    def ask(client: Any) -> TopicOffsets:
        # before the others: a job that runs may commit meanwhile what was not written when those were asked
        committed = client.list_group_offsets({group: parts})[group]
        first = client.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.EARLIEST))
        # before the first transaction that is open: its records are still to come
        end = client.list_partition_offsets(
            dict.fromkeys(parts, OffsetSpec.LATEST), isolation_level=IsolationLevel.READ_COMMITTED
        )
        written = client.list_partition_offsets(dict.fromkeys(parts, OffsetSpec.LATEST))
        return TopicOffsets(*map(_by_partition, (first, end, written, committed)))

    try:
        return _asked(bootstrap, ask)
    except BrokerUnreachableError as error:
        if not isinstance(error.__cause__, AuthorizationError):
            raise
        raise BrokerRefusedError(
            f"Kafka at {bootstrap} refuses: {brief(error.__cause__)}; check this client's rights on topic "
            f"{topic} and on the consumer group {group}: the job reads both"
        ) from error


def keep_positions(bootstrap: str, starts: Iterable[StartPositions]) -> None:
    """Commit the offsets of partitions that their groups have none of; what they have stays.

    So a job that is lost before its first checkpoint begins there again. A job reads without being a member
    of its group, so this works beside one that runs.

    Raises:
        BrokerUnreachableError: no broker answers.
    """
    for positions in starts:
        if positions.uncommitted:
            _asked(bootstrap, partial(_commit, positions))


def _commit(positions: StartPositions, client: Any) -> None:
    offsets = {
        TopicPartition(positions.topic, number): OffsetAndMetadata(positions.offsets[number], "", -1)
        for number in positions.uncommitted
    }
    answers = client.alter_group_offsets(positions.group, offsets)
    for refusal in set(answers.values()) - {NoError}:
        if refusal.retriable:
            raise refusal
        log.warning(
            "where the job begins is not committed: lost before its first checkpoint, it begins anew",
            topic=positions.topic,
            group=positions.group,
            reason=refusal.__name__,
        )


def _asked(bootstrap: str, ask: Callable[[Any], _T]) -> _T:
    """What a broker answers; one that has just started and is not ready is asked again for a while."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with admin_client(bootstrap) as client:
                return ask(client)
        except BrokerUnreachableError as error:
            is_passing = isinstance(error.__cause__, KafkaError) and error.__cause__.retriable
            if not is_passing or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)


def _by_partition(found: Mapping[TopicPartition, Any]) -> dict[int, int]:
    # a group that has no offset of a partition has -1
    return {part.partition: at.offset for part, at in found.items() if at.offset >= 0}
