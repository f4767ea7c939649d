"""Sending records back, a transaction at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from ferryline.flink_scoring.dead_letters.errors import kafka_faults
from ferryline.streams.deadletters import Header
from ferryline.streams.kafka import bootstrap_list

_TRANSACTION_MS = 60_000
_DEFAULT_REQUEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """A record for the broker; `partition` and `timestamp_ms` are None where the broker's client decides."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    partition: int | None = None
    timestamp_ms: int | None = None

    @property
    def size(self) -> int:
        """Bytes of what is in it."""
        headers = sum(len(name.encode()) + len(text or b"") for name, text in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


class TransactionalSender:
    """The one producer of a transactional id: whoever had it before is shut out, and its half is undone.

    Args:
        bootstrap: `host:port[,host:port…]`.
        transactional_id: the same for all that must not send at once.
        largest: bytes of the largest message that it may send.

    Raises:
        BrokerUnreachableError: the broker gives no transactional id in time.
    """

    def __init__(self, bootstrap: str, transactional_id: str, *, largest: int) -> None:
        self._bootstrap = bootstrap
        with kafka_faults(bootstrap):
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap_list(bootstrap),
                transactional_id=transactional_id,
                transaction_timeout_ms=_TRANSACTION_MS,
                acks="all",
                max_request_size=max(largest, _DEFAULT_REQUEST),
                allow_auto_create_topics=False,
            )
            self._transactions: Any = self._producer._transaction_manager  # noqa: SLF001
            # else one that is shut out takes the id back, and its commit loses its records (ADR 0028)
            self._transactions._supports_epoch_bump = lambda: False  # noqa: SLF001
            self._producer.init_transactions()

    def commit(
        self, records: Iterable[OutgoingRecord], offsets: Mapping[TopicPartition, int], group: Any
    ) -> None:
        """Send all of them and commit the group's offsets: all of it happens, or nothing.

        Raises:
            ConflictError: another sender has taken over.
            UnreachableError: as `kafka_faults`; nothing of it can be read.
        """
        with kafka_faults(self._bootstrap):
            self._producer.begin_transaction()
            try:
                sent = [self._send(record) for record in records]
                self._producer.flush()
                for future in sent:
                    future.get()  # a commit alone says nothing about records that were not taken
                if offsets:
                    marks = {part: OffsetAndMetadata(offset, "", -1) for part, offset in offsets.items()}
                    self._producer.send_offsets_to_transaction(marks, group)
                self._producer.commit_transaction()
            except KafkaError as error:
                # after a fatal error, calls only say that there was one
                cause = self._transactions.last_error or error
                self._abort()
                raise cause from error
            except BaseException:
                self._abort()
                raise

    def close(self) -> None:
        """Let go of the broker; an open transaction is undone."""
        with suppress(KafkaError):
            self._producer.close(timeout=5)

    def _abort(self) -> None:
        with suppress(KafkaError):
            self._producer.abort_transaction()

    def _send(self, record: OutgoingRecord) -> Any:
        return self._producer.send(
            record.topic,
            key=record.key,
            value=record.value,
            # kafka-python writes no header without a value
            headers=[(name, text or b"") for name, text in record.headers],
            partition=record.partition,
            timestamp_ms=record.timestamp_ms,
        )


@contextmanager
def open_sender(bootstrap: str, transactional_id: str, *, largest: int) -> Iterator[TransactionalSender]:
    """A sender that is closed in the end."""
    sender = TransactionalSender(bootstrap, transactional_id, largest=largest)
    try:
        yield sender
    finally:
        sender.close()
