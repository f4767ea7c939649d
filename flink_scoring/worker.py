"""What a Python worker does for a function: it follows models, chooses a version for each row, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ferryline.flink_scoring.columns import KEY, OFFSET, PARTITION, TIMESTAMP, VALUE, columns_of
from ferryline.flink_scoring.following import Wanted, followed_models, wait_for_model
from ferryline.flink_scoring.live.replay import ReplayMetrics
from ferryline.flink_scoring.live.scoring import METRIC_GROUP, ScoringMetrics, show_model
from ferryline.flink_scoring.live.shadow import ShadowMetrics
from ferryline.flink_scoring.scorer import ScoredBatch, Scorer
from ferryline.flink_scoring.timeline.keeper import Keeper, Share
from ferryline.flink_scoring.timeline.opening import open_keeper
from ferryline.flink_scoring.timeline.shares import Rows
from ferryline.flink_scoring.worker_log import log_to_task_manager
from ferryline.model_runtime.follower import Follower
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.settings import load_settings
from ferryline.streams.event_time import moment_at

if TYPE_CHECKING:  # without PyFlink, which this needs nothing of
    from ferryline.flink_scoring.function import FunctionSpec

Columns = dict[str, Any]
"""The pandas series of a batch by the names of their columns."""


class StreamWorker:
    """Scores records by the version that their timeline names; without one, by the version that serves.

    A batch is scored by one version, but for canaries and for batches that a switch falls into.
    """

    def __init__(self, spec: FunctionSpec) -> None:
        self._spec = spec
        self._follower: Follower | None = None
        self._shadow: Follower | None = None
        self._keeper: Keeper | None = None

    def open(self, metrics: Any) -> None:
        """Begin to follow the model.

        Args:
            metrics: Flink's metric group of the function.
        """
        log_to_task_manager()
        spec = self._spec
        self._scorer = Scorer(spec.pipeline, largest_dead_value=spec.largest_dead_value)
        self._follower = followed_models.acquire(spec.store, spec.pipeline, signatures=spec.signatures)
        self._answers = followed_models.answers_of(spec.store, spec.pipeline)
        group = metrics.add_group(METRIC_GROUP)
        refusals = followed_models.refusals_of(spec.store, spec.pipeline)
        self._metrics = ScoringMetrics(group, spec.pipeline.source.label.classes)
        show_model(group, self._follower, lambda: refusals.count)
        self._open_shadow(group)
        self._open_keeper(group, self._follower)

    def _open_keeper(self, group: Any, follower: Follower) -> None:
        spec = self._spec
        self._columns = columns_of(spec.pipeline)
        if OFFSET in self._columns:
            settings = load_settings(store=spec.store, signatures=spec.signatures)
            self._keeper = open_keeper(settings, spec.pipeline, spec.source_id, follower)
            self._replay_metrics = ReplayMetrics(group, self._keeper.counts)

    def _open_shadow(self, group: Any) -> None:
        spec, wanted = self._spec, Wanted.shadow_of(self._spec.pipeline)
        if wanted is not None:
            self._shadow = followed_models.acquire(spec.store, wanted, signatures=spec.signatures)
            self._shadow_answers = followed_models.answers_of(spec.store, wanted)
            self._shadow_metrics = ShadowMetrics(group, self._shadow)

    def close(self) -> None:
        """Stop following, and take the heartbeat away; also after an `open` that failed."""
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        if self._follower is not None:
            followed_models.release(self._spec.store, self._spec.pipeline)
            self._follower = None
        wanted = Wanted.shadow_of(self._spec.pipeline)
        if self._shadow is not None and wanted is not None:
            followed_models.release(self._spec.store, wanted)
            self._shadow = None

    def score(self, columns: Sequence[Any]) -> Any:
        """Score one batch: the arguments and the result of `ScoreFunction.eval`."""
        if self._follower is None:
            raise RuntimeError("this worker is not open")
        batch = dict(zip(self._columns, columns, strict=True))
        shares = self._shares(batch, wait_for_model(self._follower))
        if len(shares) == 1:
            return self._score(batch, shares[0][0])
        return pd.concat([self._score_rows(batch, *share) for share in shares]).sort_index()

    def _shares(self, batch: Columns, serving: ServedModel) -> list[Share]:
        """Which versions score which rows."""
        if self._keeper is None or not len(batch[VALUE]):
            return [(serving, None)]
        offsets = batch[OFFSET].to_numpy().astype(np.int64, copy=False)
        shares = self._keeper.choose(batch[PARTITION].to_numpy(), offsets)
        self._replay_metrics.update()
        return shares

    def _score_rows(self, batch: Columns, served: ServedModel, rows: Rows | None) -> Any:
        """What became of some rows, under their places in the batch."""
        places = np.arange(len(batch[VALUE])) if rows is None else rows
        scored = self._score({name: series.iloc[places] for name, series in batch.items()}, served)
        scored.index = places
        return scored

    def _score(self, batch: Columns, served: ServedModel) -> Any:
        times = batch.get(TIMESTAMP)
        scored = self._scorer.score(
            batch[VALUE].tolist(),
            served,
            None if times is None else moments_of(times),
            batch[KEY].tolist(),
            shadow=None if self._shadow is None else self._shadow.current,
        )
        self._count(scored, served)
        return pd.DataFrame(
            {
                "scored": scored.scored,
                "reason": pd.Series(scored.reasons, dtype=object),
                "detail": pd.Series(scored.details, dtype=object),
                "keeps_value": scored.keeps_value,
            }
        )

    def _count(self, batch: ScoredBatch, served: ServedModel) -> None:
        self._answers.update(batch.by_version)
        canary = batch.by_version.get(served.canary.model.version, 0) if served.canary else 0
        self._metrics.batch(len(batch.scored), batch.tally, batch.reasons, canary)
        if self._shadow is not None:
            self._shadow_answers.update(batch.shadow.by_version)
            self._shadow_metrics.batch(batch.shadow)


def moments_of(times: Any) -> list[datetime | None]:
    """Kafka's timestamps, a series of pandas in UTC; None for those beyond the years that a datetime has."""
    try:
        moments: list[datetime | None] = times.array.to_pydatetime().tolist()
    except (ValueError, OverflowError):
        milliseconds = times.dt.tz_convert(None).to_numpy("datetime64[ms]").astype(np.int64)
        return [moment_at(number) for number in milliseconds.tolist()]
    return moments
