"""Structured logs of every service: to standard error, for people or as one JSON object a line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from enum import StrEnum
from typing import TextIO, cast

import structlog


class LogFormat(StrEnum):
    """What `--log-format` takes."""

    CONSOLE = "console"
    JSON = "json"


def configure_logs(log_format: LogFormat = LogFormat.CONSOLE, *, verbose: bool = False) -> None:
    """Set structlog up for this process; called once, at its edge."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lines(sys.stderr))),
        cache_logger_on_first_use=True,
    )


class _Lines:
    """A stream that loses lines rather than raise: a log nobody reads any more must not stop a service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # the reader went away; the stream was closed
            self._discard()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._discard()

    def _discard(self) -> None:
        # the interpreter flushes what is buffered at its end, and exits with 120 where it cannot
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
