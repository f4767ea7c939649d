"""The function that Flink calls with labels and the predictions they are about."""

from __future__ import annotations

from typing import Any

from pyflink.table import DataTypes, FunctionContext
from pyflink.table.udf import ScalarFunction, udf

from ferryline.flink_scoring.labelling.verdicts import LabelJudge, LabelOutcome
from ferryline.flink_scoring.live.labels import LabelMetrics
from ferryline.flink_scoring.live.scoring import METRIC_GROUP
from ferryline.flink_scoring.worker_log import log_to_task_manager
from ferryline.streams.pipeline import Pipeline

_AS_NUMBER = {LabelOutcome.RIGHT: 1, LabelOutcome.WRONG: 0}


class JudgeFunction(ScalarFunction):  # type: ignore[misc]  # pyflink is untyped
    """Says of each label whether the prediction was right, and counts."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def open(self, function_context: FunctionContext) -> None:
        """Register the metrics."""
        log_to_task_manager()
        self._judge = LabelJudge(self._pipeline)
        self._metrics = LabelMetrics(function_context.get_metric_group().add_group(METRIC_GROUP))

    def eval(self, messages: Any, predictions: Any, generations: Any) -> Any:
        """Judge one batch.

        Args:
            messages: pandas series of bytes: the labels' messages.
            predictions: pandas series of text: the classes predicted; nothing where no prediction was found.
            generations: pandas series of whole numbers: which generation predicted.

        Returns:
            A pandas series: 1 for right, 0 for wrong, nothing for a label that tells neither.
        """
        import pandas as pd  # a worker has it long since; a client that submits the job does without

        outcomes = [
            self._judge.judge(message, prediction)
            for message, prediction in zip(messages.tolist(), predictions.tolist(), strict=True)
        ]
        self._metrics.judged(outcomes, generations.tolist())
        return pd.Series([_AS_NUMBER.get(outcome) for outcome in outcomes], dtype=object)


def judge_function(pipeline: Pipeline) -> Any:
    """The function, ready to be registered in a table environment."""
    return udf(JudgeFunction(pipeline), result_type=DataTypes.BIGINT(), func_type="pandas")
