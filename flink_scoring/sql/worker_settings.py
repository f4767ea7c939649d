"""Flink's settings for functions that score whole batches."""

from __future__ import annotations

from collections.abc import Mapping

BATCH_ROWS = 10_000
"""Rows in a batch: at 1,000, the way to the Python process costs more than the model does."""
WAIT_MILLISECONDS = 100
"""How long rows wait for a batch to fill: the latency at low rates."""


def worker_settings() -> Mapping[str, str]:
    """The settings by name."""
    return {
        "python.fn-execution.bundle.size": str(BATCH_ROWS),
        "python.fn-execution.arrow.batch.size": str(BATCH_ROWS),
        "python.fn-execution.bundle.time": str(WAIT_MILLISECONDS),
    }
