"""Asking workers again and again, which shows those that hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from ferryline.grpc_server.workers.messages import Count

LONGEST_TURN = 5.0
"""More than that between two looks was spent by a supervisor that stood still, and is held against nobody."""


class Watched(Protocol):
    """As much of a crew as this needs."""

    def number(self) -> int:
        """See `Crew`."""
        ...

    async def count(self, question: Count) -> None:
        """See `Crew`."""
        ...

    def look(self, seconds: float) -> None:
        """See `Crew`."""
        ...


async def watch(crew: Watched, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Have the workers say what they have counted every `interval` seconds, and those replaced that never do.

    A turn takes longer than the interval while one of them does not answer, so its length is measured.
    """
    looked = clock()
    while True:
        await asyncio.sleep(interval)
        await crew.count(Count(round=crew.number()))
        now = clock()
        crew.look(min(now - looked, LONGEST_TURN))
        looked = now
