"""A line in the log for some calls: who asked what, and how it ended; never what was sent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import structlog

from ferryline.grpc_server.observation.record import CallRecord

MOST_FAILURES = 100
"""Lines a second for calls that failed, so that a caller who goes on failing cannot fill the disk."""

log = structlog.get_logger("access")


class AccessLog:
    """Logs a share of the calls that succeed, and those that fail up to a rate.

    Args:
        share: of the calls that succeed, from 0 to 1.
        draw: a number below 1, by lot.
        clock: seconds.
    """

    def __init__(
        self,
        share: float,
        *,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._draw = draw
        self._clock = clock
        self._second = 0
        self._in_second = 0
        self._left_out = 0

    def wants(self, *, failed: bool) -> bool:
        """By lot, or by how many have failed in this second."""
        if not failed:
            return self._draw() < self._share
        second = int(self._clock())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second <= MOST_FAILURES:
            return True
        self._left_out += 1
        return False

    def ended(self, record: CallRecord) -> None:
        """Write the line."""
        said = {
            "model": record.model,
            "version": record.version,
            "generation": record.generation,
            "request_id": record.request_id,
            "failures_left_out": self._left_out,
        }
        self._left_out = 0
        log.info(
            "call",
            rpc=record.rpc,
            transport=record.transport,
            status=record.status,
            ms=round(record.seconds * 1000, 3),
            peer=record.peer,
            **{name: value for name, value in said.items() if value},
        )
