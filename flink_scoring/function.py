"""What is pickled with the job: the function that Flink calls, and what a worker needs to know.

The client that submits a job imports this, so what only workers need is imported where a function opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyflink.table import DataTypes, FunctionContext
from pyflink.table.udf import ScalarFunction, udf

from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.streams.pipeline import Pipeline

if TYPE_CHECKING:
    from ferryline.flink_scoring.worker import StreamWorker

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
    """Scores batches of records."""

    def __init__(self, spec: FunctionSpec) -> None:
        self._spec = spec
        self._worker: StreamWorker | None = None

    def open(self, function_context: FunctionContext) -> None:
        """Begin to follow the model."""
        from ferryline.flink_scoring.worker import StreamWorker

        self._worker = StreamWorker(self._spec)
        self._worker.open(function_context.get_metric_group())

    def close(self) -> None:
        """Stop following; also called where `open` failed."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def eval(self, *columns: Any) -> Any:
        """Score one batch.

        Args:
            columns: pandas series, those of `columns_of`: values and keys are bytes (or nothing), timestamps
                are in UTC.

        Returns:
            A pandas frame with the columns of `OUTCOME`.
        """
        if self._worker is None:
            raise RuntimeError("Flink called a function that it has not opened")
        return self._worker.score(columns)


def score_function(spec: FunctionSpec) -> Any:
    """The function, ready to be registered in a table environment."""
    return udf(ScoreFunction(spec), result_type=OUTCOME, func_type="pandas")
