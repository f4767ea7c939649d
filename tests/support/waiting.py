"""Waiting for conditions. No test compares times or sleeps a fixed while instead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE = 300.0
"""Seconds after which a condition counts as never met, on a machine several times slower than this one."""

_T = TypeVar("_T")


def wait_for(
    condition: Callable[[], _T], what: str, *, deadline: float = DEADLINE, pause: float = 0.02
) -> _T:
    """Returns what `condition` gives as soon as that is true.

    Args:
        condition: asked again and again.
        what: names the condition in the failure.
        deadline: seconds until the test fails.
        pause: seconds between two questions.

    Raises:
        AssertionError: the condition was not met within the deadline.
    """
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {deadline:g} s in vain for {what}"
        time.sleep(pause)
    return found


async def wait_for_async(
    condition: Callable[[], _T], what: str, *, deadline: float = DEADLINE, pause: float = 0.005
) -> _T:
    """The same on an event loop, which goes on meanwhile.

    Raises:
        AssertionError: the condition was not met within the deadline.
    """
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {deadline:g} s in vain for {what}"
        await asyncio.sleep(pause)
    return found
