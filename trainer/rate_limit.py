"""Keeping a log readable while thousands of records are refused."""

from __future__ import annotations


class RateLimit:
    """Lets a few lines of a kind through per period, and counts the others. Pure: the caller has the clock.

    Args:
        lines: allowed per period.
        period: seconds.
    """

    def __init__(self, lines: int, period: float) -> None:
        self._lines = lines
        self._period = period
        self._since = float("-inf")
        self._passed = 0
        self._held = 0

    def admit(self, now: float) -> int | None:
        """None to keep a line back; else how many were kept back since the last one."""
        if now - self._since >= self._period:
            self._since, self._passed = now, 0
        if self._passed >= self._lines:
            self._held += 1
            return None
        self._passed += 1
        held, self._held = self._held, 0
        return held
