"""What the job asks Kafka before it is submitted: that its topics are there and take what it will write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from kafka.admin import ConfigResource, ConfigResourceType

from ferryline.streams.kafka import admin_client, ensure_topics, topic_id, topic_partitions
from ferryline.streams.pipeline import Pipeline

MAX_MESSAGE_BYTES = "max.message.bytes"

LETTER_OVERHEAD = 64 * 1024
"""Bytes beyond its value that a dead letter may need: key, headers and the batch around it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """What the output topics take, and which source topic it is.

    Attributes:
        largest_message: bytes of the largest message that the dead-letter topic takes.
        source_id: the id of the source topic in hexadecimal digits, as one that is made again has another;
            nothing where the broker gives none.
    """

    largest_message: int
    source_id: str = ""

    @property
    def largest_dead_value(self) -> int:
        """Bytes of the largest value that a dead letter can carry."""
        return max(self.largest_message - LETTER_OVERHEAD, self.largest_message // 2)


def prepare_topics(bootstrap: str, pipeline: Pipeline) -> OutputLimits:
    """Create the output topics that do not exist, and learn what they take.

    A new one takes whatever the source topic takes, so that a key or a dead letter's value fits in verbatim.

    Raises:
        UnknownTopicError: the source topic, or that of the labels, does not exist.
        BrokerUnreachableError: no broker answers.
        BrokerRefusedError: an output topic cannot be created.
    """
    source, scoring = pipeline.source, pipeline.require_scoring()
    partitions = len(topic_partitions(bootstrap, source.topic))
    source_limit = message_limits(bootstrap, [source.topic])[source.topic]
    roomy = {MAX_MESSAGE_BYTES: str(source_limit + LETTER_OVERHEAD)}
    ensure_topics(bootstrap, dict.fromkeys((scoring.topic, scoring.dead_letters), partitions), roomy)
    if pipeline.labels is not None:
        topic_partitions(bootstrap, pipeline.labels.topic)  # one that is misspelt is found here
        ensure_topics(bootstrap, {pipeline.accuracy_topic: 1})
    taken = message_limits(bootstrap, [scoring.topic, scoring.dead_letters])
    limits = OutputLimits(taken[scoring.dead_letters], topic_id(bootstrap, source.topic))
    if taken[scoring.topic] < source_limit:
        log.warning(
            "a record whose key and headers are larger than the output topic takes would stop the job; "
            "raise the topic's limit",
            setting=MAX_MESSAGE_BYTES,
            topic=scoring.topic,
            bytes=taken[scoring.topic],
            source_topic_takes=source_limit,
        )
    if limits.largest_message < source_limit:
        log.warning(
            "dead letters of larger records only say where these lie; raise the topic's limit to keep them",
            setting=MAX_MESSAGE_BYTES,
            topic=scoring.dead_letters,
            bytes=limits.largest_dead_value,
            source_topic_takes=source_limit,
        )
    return limits


def message_limits(bootstrap: str, topics: Sequence[str]) -> dict[str, int]:
    """Bytes of the largest message (as the broker counts: a compressed batch) by topic.

    Raises:
        BrokerUnreachableError: no broker answers.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    with admin_client(bootstrap) as client:
        answer: dict[str, dict[str, dict[str, dict[str, Any]]]] = client.describe_configs(
            resources, config_filter="all"
        )
    by_topic = next(iter(answer.values()))
    return {name: int(by_topic[name][MAX_MESSAGE_BYTES]["value"]) for name in topics}
