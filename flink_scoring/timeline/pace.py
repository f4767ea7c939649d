"""How fast a partition's records come, and what follows from it; times are given, in seconds."""

from __future__ import annotations

WINDOW = 1.0
"""Seconds over which a rate is measured."""
RESERVED = 4.0
"""Seconds of the stream that are reserved: so long a restored job may go on by the older generation."""

_BATCHES = 2  # so many batches like the last one fit in, whatever the rate


class Pace:
    """Counts the records of one partition."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._count = 0
        self._rate = 0.0
        self._batch = 1

    def saw(self, count: int, now: float) -> None:
        """`count` offsets were passed."""
        self._roll(now)
        self._count += count
        self._batch = count

    def room(self, now: float) -> int:
        """How many offsets to reserve."""
        self._roll(now)
        return max(int(self.rate(now) * RESERVED), _BATCHES * self._batch)

    def rate(self, now: float) -> float:
        """Offsets per second: those of the last window, or already more in this one."""
        self._roll(now)
        return max(self._rate, float(self._count))

    def _roll(self, now: float) -> None:
        if now - self._since >= WINDOW:
            self._rate = self._count / (now - self._since)
            self._since, self._count = now, 0
            if self._rate < 1:
                self._batch = 1  # the last batch was a burst of long ago
