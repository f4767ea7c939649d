"""The newest rows of a stream, in an array that never grows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]


class Ring:
    """Keeps the last `capacity` rows of `width` numbers."""

    def __init__(self, capacity: int, width: int) -> None:
        self._rows: Rows = np.zeros((capacity, width))
        self._next = 0
        self._filled = 0

    def __len__(self) -> int:
        """Rows kept."""
        return self._filled

    def extend(self, rows: Rows) -> None:
        """Add rows, [n, width], oldest first; they are copied into room that is there already."""
        capacity = len(self._rows)
        rows = rows[-capacity:]
        before_the_end = capacity - self._next
        self._rows[self._next : self._next + len(rows)] = rows[:before_the_end]
        self._rows[: max(0, len(rows) - before_the_end)] = rows[before_the_end:]
        self._next = (self._next + len(rows)) % capacity
        self._filled = min(capacity, self._filled + len(rows))

    def newest(self, count: int | None = None) -> Rows:
        """A copy of the last `count` rows (None: all), oldest first."""
        count = self._filled if count is None else min(count, self._filled)
        places = (self._next - count + np.arange(count)) % len(self._rows)
        kept: Rows = self._rows[places]
        return kept
