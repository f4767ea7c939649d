"""How much time a shadow may take: a share of what scoring takes, saved up to a limit.

A run cannot be broken off, so what it will cost is estimated from the runs before it.
"""

from __future__ import annotations

BURST_SECONDS = 0.2
"""The longest that a batch may wait for its shadow, by the estimate; also what may be saved up."""

_FIRST_ROWS = 8
_NEWEST_WEIGHT = 0.3


class ShadowBudget:
    """Time that is earned by scoring and spent by the shadow.

    Args:
        share: seconds of shadow that a second of scoring allows.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._saved = BURST_SECONDS
        self._per_row: float | None = None

    def earn(self, seconds: float) -> None:
        """Scoring took `seconds`."""
        self._saved = min(BURST_SECONDS, self._saved + self._share * seconds)

    def rows(self, count: int) -> int:
        """How many of the next `count` rows may be shown to the shadow: all, or none while it must save up.

        Fewer than all where even a full purse would not pay for all of them, and where no cost is known yet.
        """
        if self._saved <= 0:
            return 0
        if self._per_row is None:
            return min(count, _FIRST_ROWS)
        affordable = count if not self._per_row else int(self._saved / self._per_row)
        if affordable >= count:
            return count
        return affordable if self._saved >= BURST_SECONDS else 0

    def spend(self, rows: int, seconds: float) -> None:
        """The shadow took `seconds` for so many rows."""
        self._saved -= seconds
        per_row = seconds / rows
        if self._per_row is None or per_row > self._per_row:
            self._per_row = per_row  # a cost that rises is believed at once, one that falls little by little
        else:
            self._per_row += _NEWEST_WEIGHT * (per_row - self._per_row)
