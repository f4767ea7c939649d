"""The training loop: poll, step, export when due, save; until told to stop or nothing is left to do."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import structlog

from ferryline.registry.errors import RefusedError
from ferryline.streams.errors import BrokerUnreachableError
from ferryline.streams.records import Rejection
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import ExportedModel, export_candidate
from ferryline.trainer.errors import PublishTimeoutError
from ferryline.trainer.metrics import TrainerMetrics
from ferryline.trainer.publisher import Publisher
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
        self._progress = training.progress
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

    def run(self) -> None:
        """Train until the end; then everything that was learnt is in the state file.

        Raises:
            PublishTimeoutError: it ended by itself, and the store did not take the last version.
            FerryError: as `KafkaSource.open` and `StateFile.save`.
        """
        positions = self._open_source()
        if positions is None:
            return
        self._progress.begin(positions)
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

    def _open_source(self) -> dict[int, int] | None:
        """Connect, and wait for a broker that is down unless told not to; None when stopped meanwhile."""
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            try:
                return self._source.open(self._progress.next)
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
        batch = self._source.poll(timeout=_POLL, limit=limit)
        if batch is not None:
            self._learn(batch)
        now = time.monotonic()
        if self._schedule.due(records=self._progress.records, now=now):
            self._export()
        elif now - self._saved_at >= _SAVE_EVERY:
            self._save()
        if now - self._told_at >= _STATUS_EVERY:
            self._tell_status("training")

    def _learn(self, batch: FetchedBatch) -> None:
        self._busy_at = time.monotonic()
        rejections = self._training.step(batch)
        self._metrics.consumed.inc(len(batch))
        self._metrics.records.inc(len(batch) - len(rejections))
        for rejection in rejections:
            self._metrics.reject(rejection.reason)
            self._tell_rejection(batch, rejection)
        newest = self._progress.newest_event_time
        if newest is not None:
            self._metrics.newest_event_time.set(newest.timestamp())

    def _export(self) -> None:
        """Hand the next version to the publisher; the state is saved first, so no version is ahead of it."""
        self._schedule = self._schedule.exported(records=self._progress.records, now=time.monotonic())
        model = self._exported()
        if model is not None and self._progress.precision is None:
            self._log.info("precision_chosen", precision=model.precision)
            self._progress.precision = model.precision
        self._save()
        if model is not None:
            self._publisher.submit(model)

    def _exported(self) -> ExportedModel | None:
        try:
            with self._metrics.export_seconds.time():
                return export_candidate(self._training)
        except RefusedError as error:
            self._metrics.refuse(error.gate)
            self._log.error("export_refused", gate=error.gate, reason=error.reason, learning="goes on")
            return None

    def _finish(self) -> None:
        """Having ended by itself: publish what is not published yet."""
        if self._stop.is_set():
            return
        if self._progress.records > self._schedule.records:
            self._export()
        deadline = time.monotonic() + _LAST_PUBLISH
        while not self._publisher.drain(_POLL) and not self._stop.is_set():
            if time.monotonic() > deadline:
                raise PublishTimeoutError(
                    f"the last version ({self._progress.records} records) could not be published for "
                    f"{_LAST_PUBLISH:g} s; run again when the store is back, nothing learnt is lost"
                )

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
