"""The edge to Kafka: sends records in order, once each, and knows how many arrived."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from ferryline.streams.errors import BrokerUnreachableError
from ferryline.streams.kafka import bootstrap_list, brief, ensure_topics, quiet_client_logs

MAX_RECORD_BYTES = 16 * 1024 * 1024
_LINGER_MS = 5
_MOST_IN_FLIGHT = 20_000


class FeedProducer:
    """Sends to `topic`, which is created when it is missing.

    Args:
        bootstrap: `host:port[,host:port…]`.
        topic: where to send.
        partitions: of the topic, when it has to be created.

    Raises:
        BrokerUnreachableError: no broker answers.
        BrokerRefusedError: the topic cannot be created.
    """

    def __init__(self, bootstrap: str, topic: str, *, partitions: int = 1) -> None:
        quiet_client_logs()
        ensure_topics(bootstrap, {topic: partitions}, {"max.message.bytes": str(MAX_RECORD_BYTES)})
        self._bootstrap = bootstrap
        self._topic = topic
        self._settled = threading.Condition()
        self.sent = 0
        self.acknowledged = 0
        self.failed = 0
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap_list(bootstrap),
                client_id="ferry-feed",
                acks="all",
                enable_idempotence=True,
                linger_ms=_LINGER_MS,
                max_request_size=MAX_RECORD_BYTES,
                reconnect_backoff_max_ms=1000,
            )
        except KafkaError as error:
            raise BrokerUnreachableError(bootstrap, brief(error)) from error

    def send(self, key: bytes, value: bytes, headers: list[tuple[str, bytes]] | None = None) -> None:
        """Send a record; waits only while very many are unacknowledged.

        Raises:
            BrokerUnreachableError: the broker takes nothing any more.
        """
        with self._settled:
            self._settled.wait_for(lambda: self._in_flight() < _MOST_IN_FLIGHT)
            self.sent += 1
        try:
            future = self._producer.send(self._topic, value=value, key=key, headers=headers or [])
        except KafkaError as error:
            self._count(acknowledged=False)
            raise BrokerUnreachableError(self._bootstrap, brief(error)) from error
        future.add_callback(self._on_success)
        future.add_errback(self._on_failure)

    def close(self, timeout: float) -> None:
        """Wait `timeout` seconds at most until every record is acknowledged or has failed."""
        with suppress(KafkaError):
            self._producer.flush(timeout=timeout)
        self._producer.close(timeout=1)

    def _in_flight(self) -> int:
        return self.sent - self.acknowledged - self.failed

    def _on_success(self, _metadata: Any) -> None:
        self._count(acknowledged=True)

    def _on_failure(self, _error: BaseException) -> None:
        self._count(acknowledged=False)

    def _count(self, *, acknowledged: bool) -> None:
        with self._settled:
            if acknowledged:
                self.acknowledged += 1
            else:
                self.failed += 1
            self._settled.notify_all()
