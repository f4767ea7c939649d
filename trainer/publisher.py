"""Delivery off the training thread: a store that is slow or down never holds learning up."""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog

from ferryline.model_runtime.gate import GateUnavailableError
from ferryline.registry.errors import ConflictError, FerryError, RefusedError, StoreError
from ferryline.trainer.candidate import ExportedModel
from ferryline.trainer.delivery import Delivery
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
        while (model := self._take()) is not None:
            self._deliver(model)
            with self._changed:
                self._delivering = False
                self._changed.notify_all()

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
            except (StoreError, ConflictError, GateUnavailableError) as error:
                self._failed_at = self._failed_at or time.monotonic()
                self._tell_failure(model, error, pause)
            except RefusedError as error:
                self._metrics.refuse(error.gate)
                self._log.error(
                    "publish_refused", records=model.records, gate=error.gate, reason=error.reason
                )
                return
            except FerryError as error:  # such as a name the registry will not take: no retry can help
                self._metrics.publish_failures.inc()
                self._log.error("publish_refused", records=model.records, error=str(error))
                return
            else:
                self._published = (manifest.version, model.records)
                self._tell_recovery()
                return
            if self._interrupted(pause):
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _tell_failure(self, model: ExportedModel, error: FerryError, pause: float) -> None:
        self._metrics.publish_failures.inc()
        self._log.warning(
            "publish_failed",
            records=model.records,
            error=str(error),
            retry_in_seconds=pause,
            learning="goes on",
        )

    def _tell_recovery(self) -> None:
        if self._failed_at is not None:
            self._log.info("store_is_back", after_seconds=round(time.monotonic() - self._failed_at, 1))
            self._failed_at = None

    def _interrupted(self, pause: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopping, pause)
            return self._waiting is not None or self._stopping
