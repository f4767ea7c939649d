"""How the server writes its log: to standard error, one event a line, without payloads."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor


class _Lines:
    """A stream that loses lines rather than raise: a log nobody reads any more must not stop the server."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # the reader went away; the stream was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure_journal(form: str) -> None:
    """Let every logger of this process write `text` for people or `json` for machines."""
    final: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *final,
        ],
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lines(sys.stderr))),
        cache_logger_on_first_use=True,
    )
