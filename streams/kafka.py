"""Kafka's administrative edge: foreign errors end here and become ours."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import BrokerResponseError, KafkaError, TopicAlreadyExistsError

from ferryline.registry.errors import UsageError
from ferryline.streams.errors import BrokerRefusedError, BrokerUnreachableError, UnknownTopicError

DEFAULT_PARTITIONS = 1
_SETTLE_TIMEOUT = 10.0
_SETTLE_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """What a broker says of a topic.

    Attributes:
        id: 32 hexadecimal digits, never given twice; empty where the broker gives none (Kafka before 2.8).
        partitions: their numbers, ascending.
    """

    id: str
    partitions: tuple[int, ...]


def bootstrap_list(bootstrap: str) -> list[str]:
    """The addresses of `host:port[,host:port…]`."""
    return [address.strip() for address in bootstrap.split(",") if address.strip()]


def _listening_address(bootstrap: str, timeout: float) -> str:
    """The first address where something listens; without one, fail early and with the system's own reason.

    kafka-python would try until its timeout, say only that, and leave its sockets open.
    """
    causes = []
    for address in bootstrap_list(bootstrap):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"{address!r} is no Kafka address; write host:port, several with commas between")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
        except (OSError, OverflowError) as error:
            causes.append(getattr(error, "strerror", None) or str(error))
        else:
            return address
    raise BrokerUnreachableError(bootstrap, "; ".join(dict.fromkeys(causes)))


def quiet_client_logs() -> None:
    """Keep kafka-python's own log to errors that we do not report ourselves.

    A broker that restarts makes it write a line per attempt and connection, which hides ours.
    """
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


@contextmanager
def admin_client(bootstrap: str, *, timeout: float = 10.0) -> Iterator[Any]:
    """A client for questions about topics.

    Args:
        bootstrap: `host:port[,host:port…]`.
        timeout: seconds until the broker is given up.

    Raises:
        UsageError: `bootstrap` is not of that form.
        BrokerUnreachableError: nothing listens, or no broker answers in time.
    """
    address = _listening_address(bootstrap, timeout)
    milliseconds = int(timeout * 1000)
    try:
        client = KafkaAdminClient(
            bootstrap_servers=[address],
            bootstrap_timeout_ms=milliseconds,
            request_timeout_ms=milliseconds,
            reconnect_backoff_max_ms=500,
        )
    except (KafkaError, OSError, ValueError) as error:
        raise BrokerUnreachableError(bootstrap, brief(error)) from error
    try:
        yield client
    except KafkaError as error:
        raise BrokerUnreachableError(bootstrap, brief(error)) from error
    finally:
        client.close()


def reach_kafka(bootstrap: str, *, timeout: float = 10.0) -> None:
    """Return when a broker answered; one attempt, which waits `timeout` seconds at most.

    Raises:
        UsageError: `bootstrap` is not host:port.
        BrokerUnreachableError: nothing listens, or nothing answers in time.
    """
    with admin_client(bootstrap, timeout=timeout) as client:
        client.list_topics()


def describe_topic(bootstrap: str, topic: str, *, timeout: float = 10.0) -> TopicDescription:
    """Returns the id and the partitions of `topic`, as a broker says now.

    Raises:
        UnknownTopicError: there is no such topic.
        BrokerUnreachableError: no broker answers.
    """
    with admin_client(bootstrap, timeout=timeout) as client:
        if topic in client.list_topics():
            for description in client.describe_topics([topic]):
                partitions = sorted(part["partition_index"] for part in description["partitions"])
                if partitions:  # none: it goes, or this broker does not know it yet
                    return TopicDescription(_id_of(description.get("topic_id")), tuple(partitions))
    raise UnknownTopicError(topic, bootstrap)


def topic_in_metadata(consumer: Any, topic: str) -> TopicDescription | None:
    """Returns what the metadata that `consumer` has says of `topic`, None while it says nothing; no IO.

    kafka-python refreshes it after every fetch that fails, and each `metadata_max_age_ms`.
    """
    metadata = consumer._cluster  # noqa: SLF001 - nothing public tells a topic's id without a request
    partitions = metadata.partitions_for_topic(topic)
    if not partitions:
        return None
    return TopicDescription(_id_of(metadata.topic_id(topic)), tuple(sorted(partitions)))


def topic_partitions(bootstrap: str, topic: str, *, timeout: float = 10.0) -> list[int]:
    """The partitions of `topic`, ascending.

    Raises:
        UnknownTopicError: there is no such topic.
        BrokerUnreachableError: no broker answers.
    """
    return list(describe_topic(bootstrap, topic, timeout=timeout).partitions)


def topic_id(bootstrap: str, topic: str, *, timeout: float = 10.0) -> str:
    """The id of `topic` in 32 hexadecimal digits; empty where the broker gives none.

    Raises:
        BrokerUnreachableError: no broker answers.
    """
    with admin_client(bootstrap, timeout=timeout) as client:
        for description in client.describe_topics([topic]):
            return _id_of(description.get("topic_id"))
    return ""


def ensure_topics(
    bootstrap: str,
    topics: Mapping[str, int],
    config: Mapping[str, str] | None = None,
    *,
    timeout: float = 10.0,
) -> list[str]:
    """Create the topics that do not exist, and wait until they can be written.

    Args:
        bootstrap: `host:port[,host:port…]`.
        topics: partitions by topic; an existing topic keeps those it has.
        config: topic settings such as `retention.ms`, for the new ones.
        timeout: seconds for each question to the broker.

    Returns:
        The names of those that were created.

    Raises:
        BrokerRefusedError: the broker will not create one.
        BrokerUnreachableError: no broker answers.
    """
    with admin_client(bootstrap, timeout=timeout) as client:
        existing = set(client.list_topics())
        created = [name for name in topics if name not in existing]
        for name in created:
            _create(client, name, topics[name], config or {}, bootstrap)
        for name in created:
            _wait_for_leaders(client, name, topics[name], bootstrap)
    return created


def _create(client: Any, name: str, partitions: int, config: Mapping[str, str], bootstrap: str) -> None:
    wanted = {name: {"num_partitions": partitions, "replication_factor": -1, "configs": dict(config)}}
    try:
        client.create_topics(wanted)
    except TopicAlreadyExistsError:
        pass  # another program was faster, which is as good
    except KafkaError as error:
        raise BrokerRefusedError(
            f"Kafka at {bootstrap} will not create topic {name!r}: {brief(error)}; "
            "create it by hand, or check the rights of this client"
        ) from error


def _id_of(given: Any) -> str:
    """A topic's id in 32 hexadecimal digits; brokers write that they have none as zero, or not at all."""
    found = uuid.UUID(str(given)) if given else uuid.UUID(int=0)
    return found.hex if found.int else ""


def _wait_for_leaders(client: Any, topic: str, partitions: int, bootstrap: str) -> None:
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    while len(_led(client, topic)) < partitions:
        if time.monotonic() > deadline:
            raise BrokerUnreachableError(bootstrap, f"topic {topic!r} has no leader yet")
        time.sleep(_SETTLE_PAUSE)


def _led(client: Any, topic: str) -> list[int]:
    return [
        part["partition_index"]
        for description in client.describe_topics([topic])
        for part in description["partitions"]
        if part["leader_id"] >= 0
    ]


def brief(error: BaseException) -> str:
    """One line of a foreign error, without the request and response that kafka-python adds to it."""
    name = type(error).__name__
    if isinstance(error, BrokerResponseError):
        return f"{name}: {error.description}"
    lines = str(error).splitlines()
    return (lines[0].removeprefix(f"{name}: ") if lines else "") or name
