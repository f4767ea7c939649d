"""Flink's settings for queries with functions that score whole batches, by whatever serves."""

from __future__ import annotations

from collections.abc import Mapping

BATCH_ROWS = 10_000
"""Rows in a batch: at 1,000, the way to the Python process costs more than the model does."""
WAIT_MILLISECONDS = 100
"""How long rows wait for a batch to fill: the latency at low rates."""


def session_settings() -> Mapping[str, str]:
    """The settings by name."""
    return {
        # a row that is taken back may be scored by another version than it was: the planner refuses a query
        # where that would come out wrong
        "table.optimizer.non-deterministic-update.strategy": "TRY_RESOLVE",
        "python.fn-execution.bundle.size": str(BATCH_ROWS),
        "python.fn-execution.arrow.batch.size": str(BATCH_ROWS),
        "python.fn-execution.bundle.time": str(WAIT_MILLISECONDS),
    }
