"""Removes what no checkpoint can need any more, beside the thread that writes: no record waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from ferryline.flink_scoring.timeline.journal import Journal
from ferryline.registry.errors import FerryError

TIDY_SECONDS = 3600.0

log = structlog.get_logger(__name__)


class Tidier:
    """Tidies up at the first tick, since an attempt may live too short to see another time, and each hour.

    Args:
        journal: what is tidied.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._begun: float | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def tick(self, newest: Callable[[], Mapping[int, int]], now: float) -> None:
        """Begin where it is time; it returns at once.

        Args:
            newest: gives for each partition the number of its newest entry.
            now: seconds that only grow.
        """
        is_due = self._begun is None or now - self._begun >= TIDY_SECONDS
        if not is_due or (self._thread is not None and self._thread.is_alive()):
            return
        self._begun = now
        # not of a pool, which would be waited for when the process ends
        self._thread = threading.Thread(
            target=self._work, args=(newest(),), name="timeline-tidy", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Remove no more."""
        self._stopping.set()

    def _work(self, newest: Mapping[int, int]) -> None:
        try:
            removed = self._remove(newest)
        except FerryError as error:
            log.warning("old timeline entries stay for now", reason=str(error))
        except Exception:
            log.exception("unexpected fault while old timeline entries are removed")
        else:
            if removed:
                log.info("old timeline entries removed", objects=removed)

    def _remove(self, newest: Mapping[int, int]) -> int:
        removed = 0
        for key in self._journal.outdated(newest):
            if self._stopping.is_set():
                break
            self._journal.remove(key)
            removed += 1
        return removed
