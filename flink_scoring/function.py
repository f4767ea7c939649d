"""The function that Flink calls: batches of records as pandas columns in, outcomes as columns out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from pyflink.table import DataTypes, FunctionContext
from pyflink.table.udf import ScalarFunction, udf

from flink_scoring.following import followed_models, wait_for_model
from flink_scoring.scorer import Scorer
from flink_scoring.worker_log import log_to_task_manager
from model_runtime.follower import Follower
from registry.signing.policy import SignaturePolicy
from streams.pipeline import Pipeline

METRIC_GROUP = "online_ml"

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
    """

    pipeline: Pipeline
    store: str
    largest_dead_value: int
    signatures: SignaturePolicy | None = None


class ScoreFunction(ScalarFunction):  # type: ignore[misc]  # pyflink is untyped
    """Scores records by the version that serves when their batch comes."""

    def __init__(self, spec: FunctionSpec) -> None:
        self._spec = spec
        self._follower: Follower | None = None

    def open(self, function_context: FunctionContext) -> None:
        """Begin to follow the model."""
        log_to_task_manager()
        spec = self._spec
        self._scorer = Scorer(spec.pipeline, largest_dead_value=spec.largest_dead_value)
        self._follower = followed_models.acquire(spec.store, spec.pipeline, signatures=spec.signatures)
        self._answers = followed_models.answers_of(spec.store, spec.pipeline)
        metrics = function_context.get_metric_group().add_group(METRIC_GROUP)
        self._samples = metrics.counter("sample_count")
        self._dead_letters = metrics.counter("dead_letters")

    def close(self) -> None:
        """Stop following, and take the heartbeat away; also called where `open` failed."""
        if self._follower is not None:
            followed_models.release(self._spec.store, self._spec.pipeline)
            self._follower = None

    def eval(self, values: Any, keys: Any, kafka_times: Any = None) -> Any:
        """Score one batch.

        Args:
            values: pandas series of bytes.
            keys: pandas series of bytes, or nothing where a record has no key.
            kafka_times: pandas series of UTC timestamps, for a pipeline without event time.

        Returns:
            A pandas frame with the columns of `OUTCOME`.
        """
        if self._follower is None:
            raise RuntimeError("Flink called a function that it has not opened")
        served = wait_for_model(self._follower)
        times = None if kafka_times is None else [moment.to_pydatetime() for moment in kafka_times]
        batch = self._scorer.score(values.tolist(), served, times, keys.tolist())
        self._answers.update(batch.by_version)
        self._samples.inc(len(batch.scored) - batch.dead)
        self._dead_letters.inc(batch.dead)
        return pd.DataFrame(
            {
                "scored": batch.scored,
                "reason": pd.Series(batch.reasons, dtype=object),
                "detail": pd.Series(batch.details, dtype=object),
                "keeps_value": batch.keeps_value,
            }
        )


def score_function(spec: FunctionSpec) -> Any:
    """The function, ready to be registered in a table environment."""
    return udf(ScoreFunction(spec), result_type=OUTCOME, func_type="pandas")
