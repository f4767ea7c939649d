"""The edge to Kafka: reads every partition of one topic from given offsets, and outlives broker restarts.

Offsets come from the trainer's own state, which is what makes learning exactly-once. They are also committed
to the consumer group, for tools that show lag; nothing here reads those.

The client has no reset policy of its own. Where an offset is out of range, or the topic has another id or
more partitions, `ferryline.trainer.positions` decides, and `poll` returns the decision. So a gap between
fetched records is never a loss: transaction markers, aborted records and compaction leave gaps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError

from ferryline.streams.errors import BrokerUnreachableError, UnknownTopicError
from ferryline.streams.kafka import (
    TopicDescription,
    bootstrap_list,
    brief,
    describe_topic,
    quiet_client_logs,
    topic_in_metadata,
)
from ferryline.streams.pipeline import SourceSpec
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.errors import OffsetsLostError
from ferryline.trainer.positions import OffsetBounds, Placement, place

DISCOVERY_SECONDS = 5.0
"""At the latest so long after a partition was added, or a topic made anew, it is noticed."""

_CONNECT_TIMEOUT = 5.0
_QUESTION_MS = 2000
_IDLE_CHECK = 2.0  # seconds without a record after which the broker is asked whether it lives, and told of
_CLOSE_MS = 1000

Found = Mapping[TopicPartition, list[Any]]


class KafkaSource:
    """The records of `source.topic`.

    Args:
        bootstrap: `host:port[,host:port…]`.
        source: the topic and where to begin in it.
        group: consumer group that offsets are reported to.
        log: where to say that the broker went away and came back.
        connect: makes the consumer, which has no offset reset policy; None for kafka-python's.
        describe: asks a broker for the topic's id and partitions; None for `describe_topic`.
        clock: seconds; None for the machine's.
        pause: waits so many seconds; None for `time.sleep`.
    """

    def __init__(
        self,
        bootstrap: str,
        source: SourceSpec,
        group: str,
        *,
        log: Any = None,
        connect: Callable[[], Any] | None = None,
        describe: Callable[[], TopicDescription] | None = None,
        clock: Callable[[], float] | None = None,
        pause: Callable[[float], None] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._source = source
        self._group = group
        self._log = log or structlog.get_logger()
        self._connect = connect or self._new_consumer
        self._describe = describe or self._described
        self._clock = clock or time.monotonic
        self._pause = pause or time.sleep
        self._consumer: Any = None
        self._at = Placement()
        self._ends: dict[int, int] = {}
        # while it is set the client may stand anywhere, so nothing is fetched; by partition, where logs part
        self._astray: dict[int, int] | None = None
        self._left_ids: set[str] = set()  # of topics that are no more; a broker may be late to know
        self._quiet_since = self._clock()
        self._lost_at: float | None = None
        self._told_lost_at = 0.0

    def open(self, known: Placement, *, left: Collection[str] = ()) -> Placement:
        """Connect, and go to `known`; without offsets in it, where the pipeline says.

        Args:
            known: where reading had come.
            left: ids of topics of the same name that were read before; none of them comes again.

        Returns:
            Where reading begins, for every partition of the topic.

        Raises:
            UnknownTopicError: there is no such topic.
            OffsetsLostError: the topic ends before `known`, and no id tells whether it is the same one.
            BrokerUnreachableError: no broker answers.
        """
        quiet_client_logs()
        self._at, self._left_ids = known, set(left)
        topic = self._describe()
        try:
            self._consumer = self._connect()
            self._go(topic)
        except KafkaError as error:
            self.close()
            raise BrokerUnreachableError(self._bootstrap, brief(error)) from error
        except (OffsetsLostError, BrokerUnreachableError):
            self.close()
            raise
        self._quiet_since = self._clock()
        return self._at

    def poll(self, *, timeout: float, limit: int) -> FetchedBatch | Placement | None:
        """The next records, at most `limit`.

        Returns:
            Records; or where reading goes on instead, when the topic or its offsets are no longer what they
            were; None when there is nothing for `timeout` seconds.

        Raises:
            OffsetsLostError: as `open`.
        """
        if self._astray is not None:
            return self._moved(self._astray, timeout)
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=limit)
            if self._has_changed() or self._goes_back(found):
                return self._moved({}, timeout)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError, LogTruncationError) as error:
            return self._moved(self._diverged(error), timeout)
        except KafkaError as error:
            self._lost(brief(error), timeout)
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

    def lag(self) -> int:
        """Records of the topic that were not read yet, as the last answers told."""
        waiting = 0
        for number, position in self._at.offsets.items():
            end = self._consumer.highwater(self._partition(number))
            waiting += max(0, (self._ends[number] if end is None else end) - position)
        return waiting

    def close(self) -> None:
        """Leave."""
        if self._consumer is not None:
            with suppress(KafkaError):
                self._consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
            self._consumer = None

    def _new_consumer(self) -> Any:
        return KafkaConsumer(
            bootstrap_servers=bootstrap_list(self._bootstrap),
            client_id=f"ferry-trainer-{self._group}",
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            metadata_max_age_ms=int(DISCOVERY_SECONDS * 1000),
            reconnect_backoff_max_ms=1000,
            request_timeout_ms=10_000,
            bootstrap_timeout_ms=int(_CONNECT_TIMEOUT * 1000),
        )

    def _described(self) -> TopicDescription:
        return describe_topic(self._bootstrap, self._source.topic, timeout=_CONNECT_TIMEOUT)

    def _partition(self, number: int) -> TopicPartition:
        return TopicPartition(self._source.topic, number)

    # --- where to read on ---------------------------------------------------------------------------

    def _go(self, topic: TopicDescription, diverged: Mapping[int, int] | None = None) -> None:
        """Decide where to read on, say it, and go there.

        Raises:
            BrokerUnreachableError: the broker is late: it shows the topic as it was before.
        """
        same = bool(topic.id) and topic.id == self._at.topic_id
        fewer = same and not set(topic.partitions) >= self._at.offsets.keys()
        if fewer or topic.id in self._left_ids:
            cause = f"it shows topic {self._source.topic} as it was before"
            raise BrokerUnreachableError(self._bootstrap, cause)
        parts = [self._partition(number) for number in topic.partitions]
        first = self._consumer.beginning_offsets(parts, timeout_ms=_QUESTION_MS)
        ends = self._consumer.end_offsets(parts, timeout_ms=_QUESTION_MS)
        bounds = {part.partition: OffsetBounds(first[part], ends[part]) for part in parts}
        at, findings = place(
            self._at,
            self._source.topic,
            topic.id,
            bounds,
            start=self._source.start,
            diverged=diverged,
        )
        self._consumer.assign(parts)  # not before the broker has answered: `lag` asks for what is read
        for part in parts:
            self._consumer.seek(part, at.offsets[part.partition])
        if self._at.topic_id not in {"", at.topic_id}:
            self._left_ids.add(self._at.topic_id)
        self._at, self._astray = at, None
        self._ends = {number: each.end for number, each in bounds.items()}
        for finding in findings:
            self._log.warning(finding.event, **finding.fields)

    def _moved(self, diverged: dict[int, int], timeout: float) -> Placement | None:
        """Look at the topic again; the records that were just fetched are not taken."""
        before, self._astray = self._at, diverged
        try:
            self._go(self._describe(), diverged)
        except (UnknownTopicError, BrokerUnreachableError) as error:
            self._lost(str(error), timeout)
        except KafkaError as error:
            self._lost(brief(error), timeout)
        else:
            self._note_back()
            if self._at != before:
                return self._at
            self._pause(timeout)  # the brokers do not agree yet: do not spin
        return None

    def _diverged(self, error: KafkaError) -> dict[int, int]:
        """By partition, from where on the broker replaced records that were read, as far as it knows."""
        diverged = {}
        for part, known in (error.divergent_offsets if isinstance(error, LogTruncationError) else {}).items():
            if known is not None:
                diverged[part.partition] = known.offset
            else:
                self._log.warning(
                    "records_replaced",
                    topic=part.topic,
                    partition=part.partition,
                    goes_on_at=self._at.offsets.get(part.partition),
                    cause="the broker lost records that were read, and does not know which",
                )
        return diverged

    def _has_changed(self) -> bool:
        """Whether the topic is another one than is read, or has more partitions, by the client's metadata."""
        seen = topic_in_metadata(self._consumer, self._source.topic)
        if seen is None or seen.id in self._left_ids:
            return False
        if seen.id and self._at.topic_id and seen.id != self._at.topic_id:
            return True
        return not self._at.offsets.keys() >= set(seen.partitions)

    def _goes_back(self, found: Found) -> bool:
        return any(
            fetched[0].offset < self._at.offsets.get(part.partition, 0) for part, fetched in found.items()
        )

    def _batch(self, found: Found) -> FetchedBatch:
        records = [record for part in found.values() for record in part]
        following = {part.partition: fetched[-1].offset + 1 for part, fetched in found.items()}
        self._at = Placement(self._at.topic_id, {**self._at.offsets, **following})
        return FetchedBatch(
            values=[record.value for record in records],
            partitions=[record.partition for record in records],
            offsets=[record.offset for record in records],
            timestamps=[record.timestamp for record in records],
            next_offsets=following,
        )

    # --- whether the broker answers -----------------------------------------------------------------

    def _check_when_idle(self) -> None:
        if self._clock() - self._quiet_since < _IDLE_CHECK:
            return
        self._quiet_since = self._clock()
        parts = [self._partition(number) for number in self._at.offsets]
        try:
            ends = self._consumer.end_offsets(parts, timeout_ms=_QUESTION_MS)
        except KafkaError as error:
            self._note_lost(self._why_silent(error))
        else:
            self._ends = {part.partition: end for part, end in ends.items()}
            self._note_back()

    def _why_silent(self, error: KafkaError) -> str:
        """What the client says, unless its metadata shows that the topic is gone."""
        if topic_in_metadata(self._consumer, self._source.topic) is None:
            return str(UnknownTopicError(self._source.topic, self._bootstrap))
        return brief(error)

    def _lost(self, cause: str, timeout: float) -> None:
        self._note_lost(cause)
        self._pause(timeout)  # the client raised at once: do not spin

    def _note_lost(self, cause: str) -> None:
        now = self._clock()
        if self._lost_at is None:
            self._lost_at = now
        elif now - self._told_lost_at < _IDLE_CHECK:
            return
        self._told_lost_at = now
        self._log.warning(
            "kafka_unreachable",
            kafka=self._bootstrap,
            cause=cause,
            for_seconds=round(now - self._lost_at, 1),
            action="retrying; nothing is lost",
        )

    def _note_back(self) -> None:
        self._quiet_since = self._clock()
        if self._lost_at is not None:
            self._log.info("kafka_is_back", after_seconds=round(self._clock() - self._lost_at, 1))
            self._lost_at = None
