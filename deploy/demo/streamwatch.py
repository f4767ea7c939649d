"""Reads what the pipeline wrote, as a downstream consumer would: committed records only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaConsumer, TopicPartition

from ferryline.deploy.demo.tally import Tally
from ferryline.streams.errors import MalformedRecordError
from ferryline.streams.kafka import bootstrap_list, quiet_client_logs, topic_partitions
from ferryline.streams.pipeline import Pipeline
from ferryline.streams.scored import decode_scored

_POLL_MS = 200
_T = TypeVar("_T")


class StreamWatch:
    """Counts the scored and dead-letter topics from where they ended when it was made.

    Args:
        bootstrap: Kafka's address.
        pipeline: names the topics, which must exist.
    """

    def __init__(self, bootstrap: str, pipeline: Pipeline) -> None:
        quiet_client_logs()
        scoring = pipeline.require_scoring()
        self.tally = Tally()
        self.malformed = 0
        self._bootstrap = bootstrap
        self._source_topic = pipeline.source.topic
        self._dead_topic = scoring.dead_letters
        self._consumer = self._open((scoring.topic, scoring.dead_letters))
        self._source = self._open((self._source_topic,))
        self._source_start = self._source_end()
        self._records_in = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stream-watch", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def stop(self) -> None:
        """Stop counting."""
        self._stopping.set()
        self._thread.join(10)
        self._consumer.close()
        self._source.close()

    @property
    def records_in(self) -> int:
        """Records written to the source topic since this watch was made."""
        return self._records_in

    def read(self, take: Callable[[Tally], _T]) -> _T:
        """Evaluate `take(tally)` while nothing is being counted."""
        with self._lock:
            return take(self.tally)

    def _open(self, topics: tuple[str, ...]) -> Any:
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap_list(self._bootstrap),
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=_POLL_MS,
        )
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in topic_partitions(self._bootstrap, topic)
        ]
        consumer.assign(partitions)
        consumer.seek_to_end(*partitions)
        for partition in partitions:
            consumer.position(partition)  # the seek is lazy: fix the place now
        return consumer

    def _source_end(self) -> int:
        return sum(self._source.end_offsets(list(self._source.assignment())).values())

    def _watch(self) -> None:
        while not self._stopping.is_set():
            found = self._consumer.poll(timeout_ms=_POLL_MS)
            with self._lock:
                for partition, records in found.items():
                    self._count(partition.topic, records)
            self._records_in = self._source_end() - self._source_start

    def _count(self, topic: str, records: list[Any]) -> None:
        if topic == self._dead_topic:
            self.tally.add_dead(len(records))
            return
        for record in records:
            try:
                self.tally.add_scored(decode_scored(record.value))
            except MalformedRecordError:
                self.malformed += 1
