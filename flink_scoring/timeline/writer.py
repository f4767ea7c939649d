"""A thread that writes ahead of scoring: reservations, and switches to newer generations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto

import structlog

from ferryline.flink_scoring.timeline.journal import REFRESH_SECONDS, Journal
from ferryline.flink_scoring.timeline.models import Models
from ferryline.flink_scoring.timeline.partitions import Kept, Shared
from ferryline.flink_scoring.timeline.rules import Switch
from ferryline.flink_scoring.timeline.tidying import Tidier
from ferryline.registry.errors import ConflictError, FerryError, MissingRightError

TICK = 0.05
"""Seconds between two looks for a newer generation."""

_AFTER_FAILURE = 1.0
_WRITERS = 8

log = structlog.get_logger(__name__)


class _Outcome(Enum):
    WRITTEN = auto()
    SUPERSEDED = auto()
    FAILED = auto()


class Writer:
    """Writes what the partitions need, from `start` to `stop`.

    Args:
        shared: the partitions.
        journal: where to write.
        models: says what serves.
        clock: seconds that only grow.

    Attributes:
        denied: why these credentials may not write timelines; None while they may.
    """

    def __init__(
        self,
        shared: Shared,
        journal: Journal,
        models: Models,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.denied: MissingRightError | None = None
        self._shared = shared
        self._journal = journal
        self._models = models
        self._clock = clock
        self._refreshed = clock()
        self._tidier = Tidier(journal)
        self._fault: str | None = None
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="timeline")
        self._thread = threading.Thread(target=self._work, name="timeline", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Someone waits."""
        self._woken.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop, and say how far this attempt came, so that the next one need not wait to switch."""
        self._stopping.set()
        self._tidier.stop()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive() or self._fault or self.denied or not self._shared.partitions:
            return
        try:
            self._journal.reserve(self._shared.settled())
        except FerryError as error:
            log.warning("the next start goes on by the older generation for a while", reason=str(error))

    def tick(self) -> None:
        """Write once what is to be written now.

        Raises:
            FerryError: the store did not take it; the next tick tries again.
        """
        with self._shared.changed:
            now = self._clock()
            offers = self._offers()
            wanted = self._shared.to_reserve(now)
            logs = self._shared.reservations(wanted)
        # both at once: records may wait for either
        written = [self._pool.submit(self._append, *offer) for offer in offers]
        try:
            if logs and (wanted or now - self._refreshed >= REFRESH_SECONDS):
                self._journal.reserve(logs)
                self._refreshed = now
                self._tell(lambda: self._shared.reserve(wanted))
        finally:
            for future, (partition, switch, _) in zip(written, offers, strict=True):
                self._take(partition, switch, future.result())
        self._tidier.tick(self._newest_entries, now)

    # --- on the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait(TICK)
            self._woken.clear()
            try:
                self.tick()
            except MissingRightError as error:
                with self._shared.changed:
                    self.denied = error
                    self._shared.changed.notify_all()
                return
            except FerryError as error:
                self._fail(str(error))
            except Exception as error:
                log.exception("unexpected fault while writing timelines")
                self._fail(repr(error))
            else:
                self._recover()

    def _offers(self) -> list[tuple[int, Switch, bytes]]:
        """The entries to be written; the models that no partition needs are forgotten."""
        newest = self._models.newest()
        offers = []
        for partition, kept in self._shared.partitions.items():
            switch = kept.timeline.propose(newest)
            if switch is not None:
                offers.append((partition, switch, self._bytes(kept, partition, switch)))
        self._models.keep(self._shared.needed())
        return offers

    def _bytes(self, kept: Kept, partition: int, switch: Switch) -> bytes:
        if kept.offered is None or kept.offered[0] != switch:
            kept.offered = (switch, self._journal.entry(partition, switch))
        return kept.offered[1]

    def _append(self, partition: int, switch: Switch, data: bytes) -> _Outcome | FerryError:
        try:
            self._journal.append(partition, switch.number, data)
        except ConflictError:
            return _Outcome.SUPERSEDED
        except FerryError as error:
            return error
        return _Outcome.WRITTEN

    def _take(self, partition: int, switch: Switch, outcome: _Outcome | FerryError) -> None:
        timeline = self._shared.partitions[partition].timeline
        if isinstance(outcome, FerryError):
            raise outcome
        if outcome is _Outcome.WRITTEN:
            self._tell(timeline.confirm)
            log.info(
                "switch written",
                partition=partition,
                offset=switch.offset,
                generation=switch.by.generation,
                version=switch.by.version,
            )
        else:
            self._tell(timeline.supersede)
            log.warning("another attempt of the job has this partition now", partition=partition)

    def _tell(self, change: Callable[[], object]) -> None:
        with self._shared.changed:
            change()
            self._shared.changed.notify_all()

    def _newest_entries(self) -> dict[int, int]:
        with self._shared.changed:
            return {partition: kept.timeline.number for partition, kept in self._shared.partitions.items()}

    def _fail(self, reason: str) -> None:
        if self._fault is None:
            log.warning("timelines cannot be written, scoring goes on by the present version", reason=reason)
        self._fault = reason
        self._stopping.wait(_AFTER_FAILURE)

    def _recover(self) -> None:
        if self._fault is not None:
            log.info("timelines are written again")
        self._fault = None
        with self._shared.changed:
            self._shared.away = False
