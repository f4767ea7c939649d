"""The timelines of a pipeline in the registry's store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ferryline.flink_scoring.timeline import documents
from ferryline.flink_scoring.timeline.documents import Reservations, Reserved, TimelineEntry
from ferryline.flink_scoring.timeline.reservations import Logs, Said, dispensable, furthest
from ferryline.flink_scoring.timeline.rules import Switch
from ferryline.registry.documents import utc_now
from ferryline.registry.errors import BrokenChainError
from ferryline.registry.log import SUFFIX, AppendLog
from ferryline.registry.parallel import in_order
from ferryline.registry.stores.base import Listed, ObjectMissingError, Store

ENTRIES_KEPT = 10
ENTRIES_KEPT_FOR = timedelta(days=7)
"""So long a retained checkpoint or savepoint may be restored and find what its offsets were scored by."""
RESERVATIONS_KEPT_FOR = timedelta(hours=1)
REFRESH_SECONDS = 900.0
"""A running attempt writes its reservations this often at least, so that they stay younger than that."""

_FIRST_STEP = 4  # entries that are read at once on the way back; doubled each time
_READERS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Which timelines are meant.

    Attributes:
        pipeline: the pipeline's name.
        topic: its source topic.
        topic_id: the topic's id in hexadecimal digits; nothing where the broker gives none.
        attempt: the subtask's attempt that writes.
    """

    pipeline: str
    topic: str
    topic_id: str
    attempt: str

    def log_of(self, partition: int) -> str:
        """The name of a partition's log."""
        return documents.log_name(self.topic, self.topic_id, partition)


class Journal:
    """Reads and writes timelines; every method may raise `StoreError`.

    Args:
        store: the registry's store.
        place: which timelines.
    """

    def __init__(self, store: Store, place: Place) -> None:
        self._store = store
        self._place = place
        self._key = documents.reservations_key(place.pipeline, place.attempt)

    # --- reading ----------------------------------------------------------------------------------

    def written(self, partition: int, first: int, *, newest: int = 0) -> list[Switch]:
        """The entries that decide about offsets from `first` on, in the order of the log.

        Args:
            partition: of which partition.
            first: an offset.
            newest: an entry that is believed to be written; then only what lies beyond is listed.
        """
        log = self._log(partition)
        numbers = list(log.numbers(after=max(0, newest - 1)))
        if not numbers and newest:  # the log was trimmed or removed since
            numbers = list(log.numbers())
        if not numbers:
            return []
        found: list[Switch] = []
        for switch in self._backwards(log, numbers[-1]):
            found.append(switch)
            if switch.offset <= first:
                break
        return found[::-1]

    def reservations(self) -> dict[str, Reserved]:
        """For each log the furthest that any attempt may have come."""
        return furthest(self._reservations([listed.key for listed in self._attempts()]))

    def _attempts(self) -> Iterator[Listed]:
        prefix = documents.reservations_prefix(self._place.pipeline)
        return (listed for listed in self._store.list(prefix) if listed.key.endswith(SUFFIX))

    def _reservations(self, keys: Sequence[str]) -> Iterator[Logs]:
        return in_order(self._reservation, keys, readers=_READERS)

    def _reservation(self, key: str) -> Logs:
        try:
            return Reservations.decode(self._store.get(key).data, key=key).logs
        except ObjectMissingError:  # tidied away since it was listed
            return {}

    def _backwards(self, log: AppendLog, newest: int) -> Iterator[Switch]:
        """The entries from `newest` back to the first that is left."""
        step, last = _FIRST_STEP, newest
        while last > 0:
            numbers = range(last, max(0, last - step), -1)
            for number, data in zip(numbers, in_order(log.read, numbers, readers=_READERS), strict=True):
                if data is None:
                    if number == newest:
                        raise BrokenChainError(f"{log.key(number)} is listed and cannot be read")
                    return  # trimmed
                yield TimelineEntry.decode(data, key=log.key(number)).switch
            last, step = last - step, step * 2

    # --- writing ----------------------------------------------------------------------------------

    def entry(self, partition: int, switch: Switch) -> bytes:
        """The bytes of an entry; equal for equal switches of this attempt but for their time."""
        place, by = self._place, switch.by
        return TimelineEntry(
            pipeline=place.pipeline,
            topic=place.topic,
            partition=partition,
            number=switch.number,
            offset=switch.offset,
            channel=by.channel,
            generation=by.generation,
            version=by.version,
            digest_of_file=by.digest,
            attempt=place.attempt,
            at=utc_now(),
        ).encode()

    def append(self, partition: int, number: int, data: bytes) -> None:
        """Write an entry; see `AppendLog.append`, the same bytes may be offered again and again.

        Raises:
            ConflictError: another attempt's entry has that number.
            OutcomeUnknownError: nothing tells whether it is written.
        """
        self._log(partition).append(number, data)

    def reserve(self, logs: Mapping[str, Reserved]) -> None:
        """Write how far this attempt may come; it is the only one who writes that object."""
        self._store.put(self._key, Reservations(attempt=self._place.attempt, logs=dict(logs)).encode())

    # --- tidying up -------------------------------------------------------------------------------

    def outdated(self, partitions: Mapping[int, int]) -> Iterator[str]:
        """The keys of what no checkpoint can need any more.

        Args:
            partitions: for each partition the number of its newest entry.
        """
        yield from self._old_reservations()
        for partition, newest in partitions.items():
            yield from list(self._old_entries(partition, newest))  # listed before the first is removed

    def remove(self, key: str) -> None:
        """Remove one of them."""
        self._store.delete(key)

    def _old_entries(self, partition: int, newest: int) -> Iterator[str]:
        log, now = self._log(partition), utc_now()
        before: str | None = None
        # the oldest come first; the youngest of the old ones still decides about what is not as old
        for listed in self._store.list(log.prefix):
            kept = listed.key > log.key(max(1, newest - ENTRIES_KEPT))
            if kept or now - listed.modified_at <= ENTRIES_KEPT_FOR:
                return
            if before is not None:
                yield before
            before = listed.key

    def _old_reservations(self) -> Iterator[str]:
        limit = utc_now() - RESERVATIONS_KEPT_FOR
        every = list(self._attempts())
        old = {listed.key for listed in every if listed.key != self._key and listed.modified_at < limit}
        if not old:
            return iter(())
        keys = [listed.key for listed in sorted(every, key=lambda each: each.modified_at, reverse=True)]
        found = zip(keys, self._reservations(keys), strict=True)
        return dispensable(Said(key, key in old, logs) for key, logs in found)

    def _log(self, partition: int) -> AppendLog:
        name = self._place.log_of(partition)
        return AppendLog(self._store, documents.log_prefix(self._place.pipeline, name))
