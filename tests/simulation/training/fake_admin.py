"""kafka-python's admin client over a `Broker`, as far as the trainer asks it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ferryline.streams.errors import BrokerUnreachableError
from tests.simulation.training.fake_log import Broker
from tests.simulation.training.lockstep import Lockstep

_NIL = uuid.UUID(int=0)
_UNKNOWN_TOPIC_OR_PARTITION = 3


class FakeAdmin:
    """What `KafkaAdminClient` answers to who asks about topics."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def list_topics(self) -> list[str]:
        return list(self._broker.topics)

    def describe_topics(self, topics: list[str] | None = None) -> list[dict[str, Any]]:
        return [self._description(name) for name in (self._broker.topics if topics is None else topics)]

    def _description(self, name: str) -> dict[str, Any]:
        topic = self._broker.topics.get(name)
        parts = [
            {"error_code": 0, "partition_index": number, "leader_id": 1, "leader_epoch": log.epoch}
            for number, log in enumerate(topic.partitions if topic else [])
        ]
        code = 0 if topic else _UNKNOWN_TOPIC_OR_PARTITION
        ident = topic.ident if topic else _NIL
        return {"error_code": code, "name": name, "topic_id": ident, "partitions": parts}

    def close(self) -> None:
        pass


def admin_client_of(broker: Broker, steps: Lockstep, on_failure: Callable[[], None]) -> Callable[..., Any]:
    """Stands for `streams.kafka.admin_client`."""

    @contextmanager
    def admin_client(bootstrap: str, *, timeout: float = 10.0) -> Iterator[FakeAdmin]:
        steps.point("kafka.admin")
        if broker.down:
            on_failure()
            steps.sleep(timeout)
            raise BrokerUnreachableError(bootstrap, "nothing listens")
        yield FakeAdmin(broker)

    return admin_client
