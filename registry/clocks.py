"""A clock for how long something took, by which a machine that sleeps does not stand still."""

from __future__ import annotations

import time


def elapsed() -> float:
    """Returns seconds that only grow, a suspend of the machine included where the system counts it."""
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux, whose monotonic clock stops in a suspend
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
