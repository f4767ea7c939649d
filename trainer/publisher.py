"""Delivery off the training thread: a store that is slow or down never holds learning up.

Which failure is tried again is in the table of `ferryline.registry.error_kinds`. The training thread watches
this one: if it ends before it is told to, `require_alive` raises.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog

from ferryline.registry.error_kinds import ErrorKind, kind_of
from ferryline.registry.errors import FerryError, RefusedError, UsageError
from ferryline.trainer.candidate import ExportedModel
from ferryline.trainer.delivery import Delivery
from ferryline.trainer.errors import PublisherEndedError
from ferryline.trainer.metrics import TrainerMetrics

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0


class Publisher:
    """A thread with room for one model: while the store is away, the newest export replaces the older one."""

    def __init__(self, delivery: Delivery, metrics: TrainerMetrics, *, log: Any = None) -> None:
        self._delivery = delivery
        self._metrics = metrics
        self._log = log or structlog.get_logger()
        self._changed = threading.Condition()
        self._waiting: ExportedModel | None = None
        self._delivering = False
        self._stopping = False
        self._published: tuple[int, int] | None = None
        self._failed_at: float | None = None  # of an outage, which may outlast several models
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def submit(self, model: ExportedModel) -> None:
        """Hand a model over; returns at once."""
        with self._changed:
            replaced = self._waiting
            self._waiting = model
            self._changed.notify_all()
        if replaced is not None:
            self._log.warning("export_superseded", records=replaced.records, by=model.records)

    @property
    def published(self) -> tuple[int, int] | None:
        """Version and records of the last model that was published here."""
        return self._published

    def require_alive(self) -> None:
        """Return while the thread does its work.

        Raises:
            PublisherEndedError: it ended, and was not told to.
        """
        if self._fault is not None:
            raise PublisherEndedError(
                f"the publisher thread ended ({told(self._fault)}), so nothing would be published any more. "
                "What was learnt is saved: start the trainer again"
            ) from self._fault

    def drain(self, timeout: float) -> bool:
        """Wait until nothing is left to deliver; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def stop(self, timeout: float) -> None:
        """Let the attempt that runs come to its end, for `timeout` seconds at most, and make no other.

        Should it take longer the process may end: a version is visible whole or not at all.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _is_idle(self) -> bool:
        return self._waiting is None and not self._delivering

    def _run(self) -> None:
        try:
            while (model := self._take()) is not None:
                self._deliver(model)
                with self._changed:
                    self._delivering = False
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - told by the training thread, which ends the process
            self._fault = error

    def _take(self) -> ExportedModel | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopping)
            if self._stopping:
                return None
            model, self._waiting = self._waiting, None
            self._delivering = True
            return model

    def _deliver(self, model: ExportedModel) -> None:
        """Try until it is delivered, until there is a newer one, or until the end."""
        pause = FIRST_PAUSE
        while True:
            try:
                manifest = self._delivery.deliver(model)
            except Exception as error:  # noqa: BLE001 - the table of kinds says what comes next
                kind = kind_of(error)
                # what the registry will not take of this export it will not take at the next try either
                if kind.is_final or isinstance(error, UsageError):
                    self._tell_refusal(model, error)
                    return
                self._failed_at = self._failed_at or time.monotonic()
                self._tell_failure(model, error, kind, pause)
            else:
                self._published = (manifest.version, model.records)
                self._tell_recovery()
                return
            if self._interrupted(pause):
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _tell_refusal(self, model: ExportedModel, error: Exception) -> None:
        if isinstance(error, RefusedError):
            self._metrics.refuse(error.gate)
            self._log.error("publish_refused", records=model.records, gate=error.gate, reason=error.reason)
        else:
            self._metrics.publish_failures.inc()
            self._log.error("publish_refused", records=model.records, error=told(error))

    def _tell_failure(self, model: ExportedModel, error: Exception, kind: ErrorKind, pause: float) -> None:
        self._metrics.publish_failures.inc()
        self._log.warning(
            "publish_failed",
            records=model.records,
            error=told(error),
            retry_in_seconds=pause,
            learning="goes on",
            **({"exc_info": error} if kind is ErrorKind.OURS else {}),
        )

    def _tell_recovery(self) -> None:
        if self._failed_at is not None:
            self._log.info("store_is_back", after_seconds=round(time.monotonic() - self._failed_at, 1))
            self._failed_at = None

    def _interrupted(self, pause: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopping, pause)
            return self._waiting is not None or self._stopping


def told(error: BaseException) -> str:
    """Returns one line about an error; of a foreign one its class too."""
    return str(error) if isinstance(error, FerryError) else f"{type(error).__name__}: {error}"
