"""The edge to Kafka: reads every partition of one topic from given offsets, and outlives broker restarts.

Offsets come from the trainer's own state, which is what makes learning exactly-once. They are also committed
to the consumer group, for tools that show lag; nothing here reads those.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from ferryline.streams.errors import BrokerUnreachableError
from ferryline.streams.kafka import bootstrap_list, brief, quiet_client_logs, topic_partitions
from ferryline.streams.pipeline import SourceSpec
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.errors import OffsetsLostError

_CONNECT_TIMEOUT = 5.0
_QUESTION_MS = 2000
_IDLE_CHECK = 2.0  # seconds without a record after which the broker is asked whether it lives
_CLOSE_MS = 1000


class KafkaSource:
    """The records of `source.topic`.

    Args:
        bootstrap: `host:port[,host:port…]`.
        source: the topic and where to begin in it.
        group: consumer group that offsets are reported to.
        log: where to say that the broker went away and came back.
    """

    def __init__(self, bootstrap: str, source: SourceSpec, group: str, *, log: Any = None) -> None:
        self._bootstrap = bootstrap
        self._source = source
        self._group = group
        self._log = log or structlog.get_logger()
        self._consumer: Any = None
        self._positions: dict[int, int] = {}
        self._quiet_since = time.monotonic()
        self._lost_at: float | None = None

    def open(self, offsets: Mapping[int, int]) -> dict[int, int]:
        """Connect, and go to `offsets`; partitions they do not name begin where the pipeline says.

        Returns:
            The offset at which reading begins, for every partition of the topic.

        Raises:
            UnknownTopicError: there is no such topic.
            OffsetsLostError: the topic ends before `offsets`.
            BrokerUnreachableError: no broker answers.
        """
        quiet_client_logs()
        partitions = topic_partitions(self._bootstrap, self._source.topic, timeout=_CONNECT_TIMEOUT)
        try:
            self._consumer = self._connect()
            self._consumer.assign([self._partition(number) for number in partitions])
            self._positions = self._first_positions(partitions, offsets)
            for number, offset in self._positions.items():
                self._consumer.seek(self._partition(number), offset)
        except KafkaError as error:
            self.close()
            raise BrokerUnreachableError(self._bootstrap, brief(error)) from error
        except OffsetsLostError:
            self.close()
            raise
        self._quiet_since = time.monotonic()
        return dict(self._positions)

    def poll(self, *, timeout: float, limit: int) -> FetchedBatch | None:
        """The next records, at most `limit`; None when there are none for `timeout` seconds."""
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=limit)
        except KafkaError as error:
            self._note_lost(brief(error))
            time.sleep(timeout)  # the client raised at once: do not spin
            return None
        if not found:
            self._check_when_idle()
            return None
        self._note_back()
        return self._batch(found)

    def report(self, offsets: Mapping[int, int]) -> None:
        """Tell the consumer group how far the saved state is; lag tools may miss one report."""
        committed = {
            self._partition(number): OffsetAndMetadata(offset, "", -1) for number, offset in offsets.items()
        }
        with suppress(KafkaError):
            self._consumer.commit_async(committed)

    def lag(self) -> int | None:
        """Records of the topic that were not read yet, as the last answers told; None before the first."""
        waiting = 0
        for number, position in self._positions.items():
            end = self._consumer.highwater(self._partition(number))
            if end is None:
                return None
            waiting += max(0, end - position)
        return waiting

    def close(self) -> None:
        """Leave."""
        if self._consumer is not None:
            with suppress(KafkaError):
                self._consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
            self._consumer = None

    def _connect(self) -> Any:
        return KafkaConsumer(
            bootstrap_servers=bootstrap_list(self._bootstrap),
            client_id=f"ferry-trainer-{self._group}",
            group_id=self._group,
            enable_auto_commit=False,
            # where retention removed what the state wanted next, go on with the oldest record there is
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            reconnect_backoff_max_ms=1000,
            request_timeout_ms=10_000,
            bootstrap_timeout_ms=int(_CONNECT_TIMEOUT * 1000),
        )

    def _partition(self, number: int) -> TopicPartition:
        return TopicPartition(self._source.topic, number)

    def _first_positions(self, partitions: list[int], offsets: Mapping[int, int]) -> dict[int, int]:
        parts = [self._partition(number) for number in partitions]
        beginnings = self._consumer.beginning_offsets(parts)
        ends = self._consumer.end_offsets(parts)
        # a partition that appears after the first start was never read, so it is read whole
        from_end = self._source.start == "latest" and not offsets
        positions = {}
        for part in parts:
            begin = ends[part] if from_end else beginnings[part]
            positions[part.partition] = offsets.get(part.partition, begin)
            if positions[part.partition] > ends[part]:
                raise OffsetsLostError(
                    f"the state has read {self._source.topic}[{part.partition}] up to offset "
                    f"{positions[part.partition]}, but the topic ends at {ends[part]}: it was created anew. "
                    "Learn anew with --from-scratch, or name another folder with --state"
                )
        return positions

    def _batch(self, found: Mapping[TopicPartition, list[Any]]) -> FetchedBatch:
        records = [record for part in found.values() for record in part]
        for part, fetched in found.items():
            self._tell_gap(part.partition, fetched[0].offset)
            self._positions[part.partition] = fetched[-1].offset + 1
        return FetchedBatch(
            values=[record.value for record in records],
            partitions=[record.partition for record in records],
            offsets=[record.offset for record in records],
            timestamps=[record.timestamp for record in records],
            next_offsets={part.partition: self._positions[part.partition] for part in found},
        )

    def _tell_gap(self, partition: int, offset: int) -> None:
        # transaction markers leave gaps of one; more at once was removed by retention or compaction
        if offset > self._positions[partition] + 1:
            self._log.warning(
                "records_gone",
                topic=self._source.topic,
                partition=partition,
                expected=self._positions[partition],
                found=offset,
            )

    def _check_when_idle(self) -> None:
        if time.monotonic() - self._quiet_since < _IDLE_CHECK:
            return
        self._quiet_since = time.monotonic()
        parts = [self._partition(number) for number in self._positions]
        try:
            self._consumer.end_offsets(parts, timeout_ms=_QUESTION_MS)
        except KafkaError as error:
            self._note_lost(brief(error))
        else:
            self._note_back()

    def _note_lost(self, cause: str) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        self._log.warning(
            "kafka_unreachable",
            kafka=self._bootstrap,
            cause=cause,
            for_seconds=round(time.monotonic() - self._lost_at, 1),
            action="retrying; nothing is lost",
        )

    def _note_back(self) -> None:
        self._quiet_since = time.monotonic()
        if self._lost_at is not None:
            self._log.info("kafka_is_back", after_seconds=round(time.monotonic() - self._lost_at, 1))
            self._lost_at = None
