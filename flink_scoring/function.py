"""The function that Flink calls: batches of records as pandas columns in, outcomes as columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyflink.table import DataTypes, FunctionContext
from pyflink.table.udf import ScalarFunction, udf

from flink_scoring.columns import KEY, OFFSET, PARTITION, TIMESTAMP, VALUE, columns_of, moments_of
from flink_scoring.following import Wanted, followed_models, wait_for_model
from flink_scoring.live.replay import ReplayMetrics
from flink_scoring.live.scoring import METRIC_GROUP, ScoringMetrics, show_model
from flink_scoring.live.shadow import ShadowMetrics
from flink_scoring.scorer import ScoredBatch, Scorer
from flink_scoring.timeline.keeper import Keeper, Share
from flink_scoring.timeline.opening import open_keeper
from flink_scoring.timeline.shares import Rows
from flink_scoring.worker_log import log_to_task_manager
from model_runtime.follower import Follower
from model_runtime.served import ServedModel
from registry.settings import load_settings
from registry.signing.policy import SignaturePolicy
from streams.pipeline import Pipeline

Columns = dict[str, Any]
"""The pandas series of a batch by the names of their columns."""

OUTCOME = DataTypes.ROW(
    [
        DataTypes.FIELD("scored", DataTypes.BYTES()),
        DataTypes.FIELD("reason", DataTypes.STRING()),
        DataTypes.FIELD("detail", DataTypes.STRING()),
        DataTypes.FIELD("keeps_value", DataTypes.BOOLEAN()),
    ]
)


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """What a worker needs to know; pickled with the job.

    Attributes:
        pipeline: what a record is, and which model scores it.
        store: URL of the registry's store; credentials come from the worker's own environment.
        largest_dead_value: see `Scorer`.
        signatures: `required` where whoever submits the job requires them: a worker whose environment names
            no keys then fails, rather than trust everything; None leaves it to the worker.
        source_id: the id of the source topic; see `OutputLimits`.
    """

    pipeline: Pipeline
    store: str
    largest_dead_value: int
    signatures: SignaturePolicy | None = None
    source_id: str = ""


class ScoreFunction(ScalarFunction):  # type: ignore[misc]  # pyflink is untyped
    """Scores records by the version that their timeline names; without one, by the version that serves.

    A batch is scored by one version, but for canaries and for batches that a switch falls into.
    """

    def __init__(self, spec: FunctionSpec) -> None:
        self._spec = spec
        self._follower: Follower | None = None
        self._shadow: Follower | None = None
        self._keeper: Keeper | None = None

    def open(self, function_context: FunctionContext) -> None:
        """Begin to follow the model."""
        log_to_task_manager()
        spec = self._spec
        self._scorer = Scorer(spec.pipeline, largest_dead_value=spec.largest_dead_value)
        self._follower = followed_models.acquire(spec.store, spec.pipeline, signatures=spec.signatures)
        self._answers = followed_models.answers_of(spec.store, spec.pipeline)
        group = function_context.get_metric_group().add_group(METRIC_GROUP)
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
        """Stop following, and take the heartbeat away; also called where `open` failed."""
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

    def eval(self, *columns: Any) -> Any:
        """Score one batch.

        Args:
            columns: pandas series, those of `columns_of`: values and keys are bytes (or nothing), timestamps
                are in UTC.

        Returns:
            A pandas frame with the columns of `OUTCOME`.
        """
        if self._follower is None:
            raise RuntimeError("Flink called a function that it has not opened")
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


def score_function(spec: FunctionSpec) -> Any:
    """The function, ready to be registered in a table environment."""
    return udf(ScoreFunction(spec), result_type=OUTCOME, func_type="pandas")
