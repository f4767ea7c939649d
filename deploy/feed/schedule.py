"""Which sample is sent next, and when. Pure: the caller has the clock."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import numpy as np

_LONGEST_BACKLOG = 1.0  # seconds


class Pacer:
    """Says how many records are due, so that the average rate is exact at any rate.

    After a stall it catches up with at most a second's worth of records, rather than flood the broker.
    """

    def __init__(self, rate: float, *, now: float) -> None:
        self._rate = rate
        self._origin = now
        self._sent = 0

    def due(self, now: float) -> int:
        """Records to send at once."""
        overdue = (now - self._origin) - (self._sent + 1) / self._rate
        if overdue > _LONGEST_BACKLOG:
            self._origin += overdue - _LONGEST_BACKLOG
        return max(0, int((now - self._origin) * self._rate + 1e-9) - self._sent)

    def sent(self, records: int) -> None:
        """Account for records that were sent."""
        self._sent += records

    def pause(self, now: float) -> float:
        """Seconds until the next record is due."""
        return max(0.0, self._origin + (self._sent + 1) / self._rate - now)


def sample_order(
    samples: int, *, loops: int | None = None, count_limit: int | None = None, seed: int | None = None
) -> Iterator[int]:
    """The indices of the samples to send.

    Args:
        samples: how many there are.
        loops: passes over the data; None for no end.
        count_limit: end after so many.
        seed: shuffle each pass; None keeps the original order.
    """
    return islice(_endless(samples, loops, seed), count_limit)


def _endless(samples: int, loops: int | None, seed: int | None) -> Iterator[int]:
    generator = None if seed is None else np.random.default_rng(seed)
    for _ in count() if loops is None else range(loops):
        yield from range(samples) if generator is None else generator.permutation(samples).tolist()
