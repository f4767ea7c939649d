"""The training loop: poll, step, export when due, save; until told to stop or nothing is left to do.

What fails of a step, an export, or a save before the end is tried again with back-off. A step that failed has
changed nothing, and while an export fails learning goes on.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import structlog

from ferryline.registry.error_kinds import ErrorKind, kind_of
from ferryline.registry.errors import RefusedError
from ferryline.streams.errors import BrokerUnreachableError
from ferryline.streams.records import Rejection
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import export_candidate
from ferryline.trainer.errors import PublishTimeoutError, StateUnwritableError
from ferryline.trainer.metrics import TrainerMetrics
from ferryline.trainer.positions import Placement
from ferryline.trainer.progress import Progress
from ferryline.trainer.publisher import Publisher, told
from ferryline.trainer.rate_limit import RateLimit
from ferryline.trainer.schedule import ExportSchedule
from ferryline.trainer.source import KafkaSource
from ferryline.trainer.state import StateFile
from ferryline.trainer.training import Training

_POLL = 0.2  # seconds; how late a stop or an export may be noticed
_SAVE_EVERY = 5.0
_STATUS_EVERY = 5.0
_LAST_PUBLISH = 60.0
_STOP_PATIENCE = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """When to end by oneself.

    Attributes:
        until_records: end when so many records were learnt or skipped, earlier runs included.
        idle_exit: end after so many seconds without a record.
        fail_fast: do not wait for a broker that is down at the start.
    """

    until_records: int | None = None
    idle_exit: float | None = None
    fail_fast: bool = False


class TrainerLoop:
    """Runs `training` on the records of `source`, on the thread that calls `run`."""

    def __init__(
        self,
        training: Training,
        source: KafkaSource,
        publisher: Publisher,
        state: StateFile,
        metrics: TrainerMetrics,
        options: RunOptions,
        *,
        stop: threading.Event,
        log: Any = None,
    ) -> None:
        self._training = training
        self._source = source
        self._publisher = publisher
        self._state = state
        self._metrics = metrics
        self._options = options
        self._stop = stop
        self._log = log or structlog.get_logger()
        self._rejection_lines = RateLimit(lines=5, period=10.0)
        now = time.monotonic()
        self._schedule = ExportSchedule.start(
            training.pipeline.export, records=self._progress.published_records, now=now
        )
        self._busy_at = self._saved_at = self._told_at = now
        self._saved_consumed = self._told_consumed = self._progress.consumed

    @property
    def _progress(self) -> Progress:
        return self._training.progress

    def run(self) -> None:
        """Train until the end; then everything that was learnt is in the state file.

        Raises:
            PublishTimeoutError: it ended by itself, and the store did not take the last version.
            PublisherEndedError: the thread that publishes is gone.
            FerryError: as `KafkaSource.open`, `KafkaSource.poll` and `StateFile.save`.
        """
        placement = self._open_source()
        if placement is None:
            return
        self._training.place(placement)
        self._save()
        self._publisher.start()
        try:
            while not self._stop.is_set() and not self._is_done():
                self._turn()
            self._finish()
        finally:
            self._publisher.stop(_STOP_PATIENCE)
            self._save()
            self._source.close()
        self._tell_status("stopped")

    def _open_source(self) -> Placement | None:
        """Connect, and wait for a broker that is down unless told not to; None when stopped meanwhile."""
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            try:
                return self._source.open(self._progress.placement, left=self._progress.left_topics)
            except BrokerUnreachableError as error:
                if self._options.fail_fast:
                    raise
                self._log.warning("kafka_unreachable", error=str(error), retry_in_seconds=pause)
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return None

    def _is_done(self) -> bool:
        until, idle = self._options.until_records, self._options.idle_exit
        if until is not None and self._progress.consumed >= until:
            return True
        return idle is not None and time.monotonic() - self._busy_at >= idle

    def _turn(self) -> None:
        limit = self._training.pipeline.learner.batch_records
        if self._options.until_records is not None:
            limit = min(limit, self._options.until_records - self._progress.consumed)
        self._publisher.require_alive()
        found = self._source.poll(timeout=_POLL, limit=limit)
        if isinstance(found, Placement):
            self._training.place(found)
            self._saved()
        elif found is not None:
            self._learn(found)
        now = time.monotonic()
        if self._schedule.due(records=self._progress.records, now=now):
            self._export()
        elif now - self._saved_at >= _SAVE_EVERY:
            self._saved()
        if now - self._told_at >= _STATUS_EVERY:
            self._tell_status("training")

    def _learn(self, batch: FetchedBatch) -> None:
        self._busy_at = time.monotonic()
        rejections = self._stepped(batch)
        if rejections is None:
            return
        self._metrics.consumed.inc(len(batch))
        self._metrics.records.inc(len(batch) - len(rejections))
        for rejection in rejections:
            self._metrics.reject(rejection.reason)
            self._tell_rejection(batch, rejection)
        newest = self._progress.newest_event_time
        if newest is not None:
            self._metrics.newest_event_time.set(newest.timestamp())

    def _stepped(self, batch: FetchedBatch) -> list[Rejection] | None:
        """Learn a batch, however often the machine lacks what that takes; None when stopped meanwhile."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._training.step(batch)
            except Exception as error:
                if kind_of(error) is ErrorKind.OURS:
                    raise
                self._log.warning("step_failed", error=told(error), retry_in_seconds=pause)
            if self._stop.wait(pause):
                return None
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _export(self) -> None:
        """Hand the next version to the publisher; the state is saved first, so no version is ahead of it."""
        try:
            with self._metrics.export_seconds.time():
                model = export_candidate(self._training)
        except Exception as error:  # noqa: BLE001 - the table of kinds says what comes next
            self._tell_no_export(error)
            return
        if self._progress.precision is None:
            self._log.info("precision_chosen", precision=model.precision)
            self._progress.precision = model.precision
        if not self._saved():
            self._metrics.export_failures.inc()
            self._schedule = self._schedule.failed(now=time.monotonic())
            return
        self._schedule = self._schedule.exported(records=self._progress.records, now=time.monotonic())
        self._publisher.submit(model)

    def _tell_no_export(self, error: Exception) -> None:
        kind, now = kind_of(error), time.monotonic()
        if isinstance(error, RefusedError):
            self._metrics.refuse(error.gate)
            self._log.error("export_refused", gate=error.gate, reason=error.reason, learning="goes on")
            self._schedule = self._schedule.exported(records=self._progress.records, now=now)
            self._saved()
            return
        self._metrics.export_failures.inc()
        self._schedule = self._schedule.failed(now=now)
        self._log.warning(
            "export_failed",
            error=told(error),
            retry_in_seconds=self._schedule.pause,
            learning="goes on",
            **({"exc_info": error} if kind is ErrorKind.OURS else {}),
        )

    def _finish(self) -> None:
        """Having ended by itself: publish what is not published yet."""
        deadline = time.monotonic() + _LAST_PUBLISH
        while not self._stop.is_set():
            self._publisher.require_alive()
            if self._progress.records <= self._schedule.records:
                if self._publisher.drain(_POLL):
                    return
            elif self._schedule.retry_at is None or time.monotonic() >= self._schedule.retry_at:
                self._export()
            else:
                self._stop.wait(_POLL)
            if time.monotonic() > deadline:
                why = "run again when the store is back"
                if self._schedule.retry_at is not None:
                    why = "its export fails, as the log says"
                raise PublishTimeoutError(
                    f"the last version ({self._progress.records} records) could not be published for "
                    f"{_LAST_PUBLISH:g} s; {why}, nothing learnt is lost"
                )

    def _saved(self) -> bool:
        """Save, and return whether that was done; what disk or memory did not take is tried again soon."""
        try:
            self._save()
        except (StateUnwritableError, MemoryError) as error:
            self._saved_at = time.monotonic()
            self._log.error(
                "state_unsaved", error=told(error), retry_in_seconds=_SAVE_EVERY, learning="goes on"
            )
            return False
        return True

    def _save(self) -> None:
        published = self._publisher.published
        if published is not None:
            self._progress.last_version, self._progress.published_records = published
        self._state.save(self._progress, self._training.arrays())
        self._saved_at = time.monotonic()
        if self._progress.consumed != self._saved_consumed:
            self._source.report(self._progress.next)
            self._saved_consumed = self._progress.consumed

    def _tell_rejection(self, batch: FetchedBatch, rejection: Rejection) -> None:
        held_back = self._rejection_lines.admit(time.monotonic())
        if held_back is None:
            return
        self._log.warning(
            "record_rejected",
            reason=str(rejection.reason),
            detail=rejection.detail,
            topic=self._training.pipeline.source.topic,
            partition=batch.partitions[rejection.index],
            offset=batch.offsets[rejection.index],
            **({"others_not_shown": held_back} if held_back else {}),
        )

    def _tell_status(self, event: str) -> None:
        now = time.monotonic()
        metrics = self._training.window.metrics()
        self._metrics.accuracy.set(metrics.get("accuracy", 0.0))
        self._metrics.log_loss.set(metrics.get("log_loss", 0.0))
        lag = self._source.lag() if event == "training" else None
        if lag is not None:
            self._metrics.lag.set(lag)
        published = self._publisher.published
        self._log.info(
            event,
            records=self._progress.records,
            skipped=sum(self._progress.skipped.values()),
            per_second=round(
                (self._progress.consumed - self._told_consumed) / max(now - self._told_at, 1e-9), 1
            ),
            lag=lag,
            version=published[0] if published else self._progress.last_version,
            **{name: round(value, 4) for name, value in metrics.items()},
        )
        self._told_at, self._told_consumed = now, self._progress.consumed
