"""The log of a Python worker: its lines end in the task manager's log, where an operator looks."""

from __future__ import annotations

import logging

import structlog


def log_to_task_manager() -> None:
    """Hand structlog's lines to standard logging, which Flink's worker sends to the task manager."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_logger_name,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logging.getLogger().setLevel(logging.INFO)
