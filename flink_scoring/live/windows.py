"""Sums over the last seconds, for gauges that say how things are now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SPAN_SECONDS = 10.0

_STEPS = 20


class RecentSums:
    """Sums of several amounts over the last seconds, in steps of a twentieth of the span.

    An amount counts for at least the span and at most one step more.

    Args:
        width: how many amounts come together.
        span: seconds.
        clock: seconds from any moment on, never backwards.
    """

    def __init__(
        self, width: int, *, span: float = SPAN_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._step = span / _STEPS
        self._clock = clock
        self._sums = [0] * width
        self._kept: deque[tuple[int, list[int]]] = deque()

    def add(self, *amounts: int) -> None:
        """Count amounts in, now."""
        step = self._forget()
        if not self._kept or self._kept[-1][0] != step:
            self._kept.append((step, [0] * len(self._sums)))
        for sums in (self._sums, self._kept[-1][1]):
            for place, amount in enumerate(amounts):
                sums[place] += amount

    def sums(self) -> tuple[int, ...]:
        """The sums of what was added within the span."""
        self._forget()
        return tuple(self._sums)

    def _forget(self) -> int:
        step = int(self._clock() / self._step)
        while self._kept and self._kept[0][0] < step - _STEPS:
            _, gone = self._kept.popleft()
            for place, amount in enumerate(gone):
                self._sums[place] -= amount
        return step


def percent(part: int, whole: int) -> int:
    """How many of a hundred, rounded; -1 where there is nothing to be a part of."""
    return round(100 * part / whole) if whole else -1
