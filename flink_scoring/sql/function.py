"""The function that Flink calls from a query: batches of arguments as pandas columns in, results out."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import structlog
from pyflink.table import FunctionContext
from pyflink.table.udf import ScalarFunction

from ferryline.flink_scoring.sql.calls import Caller, Outcome
from ferryline.flink_scoring.sql.models import open_models
from ferryline.flink_scoring.sql.sources import PlannedFunction
from ferryline.flink_scoring.worker_log import log_to_task_manager

METRIC_GROUP = "online_ml"

_COMPLAINT_PAUSE = 60.0

log = structlog.get_logger(__name__)


class PredictFunction(ScalarFunction):  # type: ignore[misc]  # pyflink is untyped
    """Scores the rows of a query by the version that serves when their batch comes."""

    def __init__(self, planned: PlannedFunction) -> None:
        self._planned = planned
        self._caller: Caller | None = None
        self._complained_at = -_COMPLAINT_PAUSE

    def is_deterministic(self) -> bool:
        """See `PlannedFunction`."""
        return self._planned.is_deterministic

    def open(self, function_context: FunctionContext) -> None:
        """Load the model, or begin to follow it."""
        log_to_task_manager()
        self._version = self._generation = 0
        name = self._planned.signature.name
        metrics = function_context.get_metric_group().add_group(METRIC_GROUP).add_group("function", name)
        self._scored = metrics.counter("scored_rows")
        self._unscorable = metrics.counter("unscorable_rows")
        metrics.gauge("model_version", lambda: self._version)
        metrics.gauge("model_generation", lambda: self._generation)
        self._caller = Caller(self._planned, open_models(self._planned))

    def close(self) -> None:
        """Give the model back; also called where `open` failed."""
        if self._caller is not None:
            self._caller.models.close()
            self._caller = None

    def eval(self, *given: Any) -> pd.Series | pd.DataFrame:
        """Score one batch.

        Args:
            given: for each argument a pandas series, or a constant.

        Returns:
            A series, or for a ROW a frame.

        Raises:
            UnscorableRowError: a row cannot be scored, and the function is to fail then.
        """
        if self._caller is None:
            raise RuntimeError("Flink called a function that it has not opened")
        outcome = self._caller.call(given)
        self._account(outcome)
        return outcome.result

    def _account(self, outcome: Outcome) -> None:
        self._scored.inc(outcome.scored)
        self._version, self._generation = outcome.newest.version or 0, outcome.newest.generation or 0
        if not outcome.reasons:
            return
        self._unscorable.inc(outcome.reasons.total())
        if time.monotonic() - self._complained_at >= _COMPLAINT_PAUSE:
            self._complained_at = time.monotonic()
            log.warning(
                "rows cannot be scored and give NULL",
                function=self._planned.signature.name,
                reasons=dict(outcome.reasons.most_common(3)),
            )
