"""kafka-python's consumer (3.0.12) over a `Broker`, with the answers that the library gives.

What is done as there, because readers depend on it:

- A position carries the leader's epoch of the record before it once one was read, and none after a `seek`.
  With one, a log that was cut back is noticed: the position goes to where the logs part, or
  `LogTruncationError` is raised where no policy resets offsets. Without one, only an offset beyond the log's
  end is noticed.
- An offset out of range is reset by `auto_offset_reset`, silently, or raises `OffsetOutOfRangeError`. An
  error waits for the next poll where records of other partitions are there.
- Readers of what is committed read to the last stable offset, `end_offsets` is that, and `highwater` is not.
- A poll passes over markers and aborted records, and the position with it, unless it had all it may take.
- Records are fetched of partitions that the client knows the leader of. A topic that is deleted or made anew
  fails the fetch that is under way; then the client asks what topics there are.
- What the client knows of topics (`partitions_for_topic`, `_cluster.topic_id`) is as old as its last refresh.
- A broker that is away makes `poll` return nothing and every question raise `KafkaTimeoutError`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.future import Future
from kafka.structs import OffsetAndTimestamp

from tests.simulation.training.fake_log import UNDEFINED, Broker, Partition
from tests.simulation.training.lockstep import Lockstep


@dataclass(slots=True)
class _State:
    position: OffsetAndMetadata | None = None
    highwater: int | None = None
    paused: bool = False
    resetting: bool = False


class FakeConsumer:
    """What `KafkaConsumer` is to its user.

    Args:
        broker: where the topics lie.
        steps: the process it runs in.
        on_poll: called at the begin of every poll.
        delivered: told of every record given out: partition, offset, the record's own id.
        config: of the library's keys those that change what a reader sees.
    """

    def __init__(
        self,
        broker: Broker,
        steps: Lockstep,
        on_poll: Callable[[], None],
        delivered: Callable[[int, int, int], None],
        **config: Any,
    ) -> None:
        self._broker = broker
        self._steps = steps
        self._on_poll = on_poll
        self._delivered = delivered
        self._policy: str = config.get("auto_offset_reset", "latest")
        self._committed_only = config.get("isolation_level") == "read_committed"
        self._max_age = config.get("metadata_max_age_ms", 300_000) / 1000
        self._max_records = config.get("max_poll_records", 500)
        self._group = config.get("group_id")
        self._states: dict[TopicPartition, _State] = {}
        self._error: Exception | None = None
        self._closed = False
        self._cluster = FakeCluster(self)  # the library has no public name for it
        self._require_broker()
        self._cluster.refresh()

    def reached(self, part: TopicPartition) -> OffsetAndMetadata | None:
        """The position in a partition with the leader's epoch, None where it has none."""
        state = self._states.get(part)
        position = state.position if state else None
        return position if position is not None and position.leader_epoch >= 0 else None

    # --- where to read ---

    def assign(self, partitions: list[TopicPartition]) -> None:
        wanted = set(partitions)
        kept = {part: state for part, state in self._states.items() if part in wanted}
        self._states = kept | {part: _State() for part in partitions if part not in kept}
        self._cluster.refresh()

    def assignment(self) -> set[TopicPartition]:
        return set(self._states)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if not isinstance(offset, int) or offset < 0:
            raise ValueError("Offset must be int >= 0")
        if partition not in self._states:
            raise ValueError("Unassigned partition")
        state = self._states[partition]
        state.position, state.resetting = OffsetAndMetadata(offset, "", -1), False

    def position(self, partition: TopicPartition, timeout_ms: int | None = None) -> int | None:
        if partition not in self._states:
            raise kafka_errors.IllegalStateError("Partition is not assigned")
        found = self._states[partition].position
        return None if found is None else found.offset

    def pause(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self._states[partition].paused = True

    def resume(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self._states[partition].paused = False

    def highwater(self, partition: TopicPartition) -> int | None:
        if partition not in self._states:
            raise kafka_errors.IllegalStateError("Partition is not assigned")
        return self._states[partition].highwater

    # --- questions ---

    def beginning_offsets(
        self, partitions: list[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        self._steps.point("kafka.beginning_offsets")
        return {part: self._log(part).start for part in partitions}

    def end_offsets(
        self, partitions: list[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        self._steps.point("kafka.end_offsets")
        return {part: self._end(self._log(part)) for part in partitions}

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], timeout_ms: int | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        found: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        for part, moment in timestamps.items():
            if moment < 0:
                raise ValueError("The target time cannot be negative.")
            entries = [e for e in self._log(part).entries if e.ident is not None and e.timestamp >= moment]
            first = entries[0] if entries else None
            found[part] = OffsetAndTimestamp(first.offset, first.timestamp, first.epoch) if first else None
        return found

    def topics(self) -> set[str]:
        self._require_broker()
        self._cluster.refresh()
        return set(self._broker.topics)

    def partitions_for_topic(self, topic: str) -> set[int]:
        if topic not in self._cluster.known:
            self._require_broker()
            self._cluster.refresh()
        return self._cluster.partitions_for_topic(topic) or set()

    # --- reading ---

    def poll(
        self, timeout_ms: int = 0, max_records: int | None = None, update_offsets: bool = True
    ) -> dict[TopicPartition, list[Any]]:
        if timeout_ms < 0 or (max_records is not None and max_records <= 0):
            raise ValueError("timeout and max_records must be positive")
        self._require_open()
        self._on_poll()
        self._steps.point("kafka.poll")
        if not self._broker.down:
            self._refresh_when_old()
            found = self._fetch(max_records or self._max_records)
            if found:
                return found
        self._steps.sleep(timeout_ms / 1000)
        return {}

    def commit_async(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], callback: Any = None) -> None:
        self._steps.require_alive()
        if not self._broker.down:
            self._broker.committed.update(
                {(part.topic, part.partition): at.offset for part, at in offsets.items()}
            )

    def close(self, autocommit: bool = True, timeout_ms: int | None = None) -> None:
        self._closed = True

    def _fetch(self, limit: int) -> dict[TopicPartition, list[Any]]:
        error, self._error = self._error, None
        if error is not None:
            raise error
        found: dict[TopicPartition, list[Any]] = {}
        for part, state in list(self._states.items()):
            log = self._known_log(part)
            if log is None:
                self._cluster.refresh()
            elif not state.paused:
                try:
                    records = self._read(part, state, log, limit)
                except kafka_errors.KafkaError as raised:
                    if not found:
                        raise
                    self._error = self._error or raised
                    continue
                if records:
                    found[part] = records
                    limit -= len(records)
                    self._states[part] = self._states.pop(part)  # others come first the next time
        return found

    def _known_log(self, part: TopicPartition) -> Partition | None:
        """The log of a partition that the client knows the leader of."""
        known = self._cluster.known.get(part.topic)
        topic = self._broker.topics.get(part.topic)
        if known is None or topic is None or known[0] != topic.ident or part.partition >= known[1]:
            return None
        return self._broker.partition(part.topic, part.partition)

    def _read(self, part: TopicPartition, state: _State, log: Partition, limit: int) -> list[Any]:
        if state.position is None:
            self._reset(part, state, log)
        position = state.position
        if position is None or not self._is_in_range(part, state, log):
            return []
        state.highwater = log.end
        end = self._end(log)
        waiting = [e for e in log.entries if position.offset <= e.offset < end]
        given = [e for e in waiting if e.ident is not None]
        if self._committed_only:
            given = [e for e in given if log.is_visible(e)]
        taken = given[:limit]
        if len(taken) < limit and limit > 0:
            reached = waiting[-1] if waiting else None
        else:
            reached = taken[-1] if taken else None
        if reached is not None:
            state.position = OffsetAndMetadata(reached.offset + 1, "", reached.epoch)
        for entry in taken:
            self._delivered(part.partition, entry.offset, entry.ident)
        return [_record(part, entry) for entry in taken]

    def _is_in_range(self, part: TopicPartition, state: _State, log: Partition) -> bool:
        position = state.position
        assert position is not None
        if position.leader_epoch >= 0:
            epoch, end = log.end_of_epoch(position.leader_epoch)
            if (epoch, end) == UNDEFINED:
                self._out_of_range(part, state, None)
                return False
            if epoch < position.leader_epoch or end < position.offset:
                self._out_of_range(part, state, OffsetAndMetadata(end, "", epoch))
                return False
        if not log.start <= position.offset <= log.end:
            if self._policy == "none":
                raise kafka_errors.OffsetOutOfRangeError({part: position.offset})
            state.position, state.resetting = None, True
            return False
        return True

    def _out_of_range(self, part: TopicPartition, state: _State, parting: OffsetAndMetadata | None) -> None:
        if self._policy == "none":
            raise kafka_errors.LogTruncationError({part: parting})
        state.position, state.resetting = parting, parting is None

    def _reset(self, part: TopicPartition, state: _State, log: Partition) -> None:
        if not state.resetting and self._group:  # never had one: the group's offset counts, if it has one
            committed = self._broker.committed.get((part.topic, part.partition))
            if committed is not None:
                state.position = OffsetAndMetadata(committed, "", -1)
                return
        if self._policy == "none":
            raise kafka_errors.NoOffsetForPartitionError({part: None})
        begin = log.start if self._policy == "earliest" else self._end(log)
        state.position, state.resetting = OffsetAndMetadata(begin, "", -1), False

    def _end(self, log: Partition) -> int:
        return log.stable_end if self._committed_only else log.end

    def _log(self, part: TopicPartition) -> Partition:
        self._require_broker()
        found = self._broker.partition(part.topic, part.partition)
        if found is None:
            raise kafka_errors.KafkaTimeoutError("Failed to get offsets by timestamps: no such partition")
        return found

    def _refresh_when_old(self) -> None:
        if self._steps.clock.now - self._cluster.refreshed_at >= self._max_age:
            self._cluster.refresh()

    def _require_broker(self) -> None:
        self._require_open()
        if self._broker.down:
            raise kafka_errors.KafkaTimeoutError("no broker answers")

    def _require_open(self) -> None:
        if self._closed:
            raise kafka_errors.IllegalStateError("KafkaConsumer is closed")


class FakeCluster:
    """What the consumer's client knows of topics."""

    def __init__(self, consumer: FakeConsumer) -> None:
        self._consumer = consumer
        self.known: dict[str, tuple[uuid.UUID, int]] = {}
        self.refreshed_at = float("-inf")

    def refresh(self) -> None:
        """Ask the broker, unless it is away."""
        consumer = self._consumer
        if not consumer._broker.down:
            self.known = {
                name: (topic.ident, len(topic.partitions)) for name, topic in consumer._broker.topics.items()
            }
            self.refreshed_at = consumer._steps.clock.now

    def request_update(self) -> Any:
        self.refresh()
        future = Future()
        return future.success(self) if not self._consumer._broker.down else future

    def topic_id(self, name: str) -> uuid.UUID | None:
        return self.known[name][0] if name in self.known else None

    def partitions_for_topic(self, name: str) -> set[int] | None:
        return set(range(self.known[name][1])) if name in self.known else None

    available_partitions_for_topic = partitions_for_topic

    def topics(self, exclude_internal_topics: bool = True) -> set[str]:
        return set(self.known)


def _record(part: TopicPartition, entry: Any) -> Any:
    return SimpleNamespace(
        topic=part.topic,
        partition=part.partition,
        leader_epoch=entry.epoch,
        offset=entry.offset,
        timestamp=entry.timestamp,
        timestamp_type=0,
        key=None,
        value=entry.value,
        headers=[],
    )
