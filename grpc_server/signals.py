"""The signals that ask a process to stop."""

from __future__ import annotations

import asyncio
import os
import signal

import structlog

log = structlog.get_logger(__name__)


INTERRUPTED = 130
"""The exit code for Ctrl-C."""


async def asked_to_stop() -> None:
    """Wait for the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop, received = asyncio.get_running_loop(), asyncio.Event()

    def note(number: signal.Signals) -> None:
        received.set()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
        signal.signal(signal.SIGINT, _end)
        log.info("asked to stop", signal=number.name)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, note, each)
    await received.wait()


def _end(_number: int, _frame: object) -> None:
    # an exception would still wait for the threads that run models
    os._exit(INTERRUPTED)
