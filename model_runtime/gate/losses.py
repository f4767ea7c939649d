"""Counts how often in a row the machine ended a candidate's judgement, so that no model loads it for ever.

One child that the system's OOM killer ends says little: another program may have taken the memory. One that
is ended at every try, with the pauses of a back-off between them, needs more than this machine has.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ferryline.model_runtime.gate.errors import ChildLostError
from ferryline.registry.errors import RefusedError

MOST_LOSSES = 8
"""So many losses in a row refuse a candidate: with a follower's back-off, those of about a minute."""
_REMEMBERED = 64


class Losses:
    """The losses of each candidate since its last verdict; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, int] = OrderedDict()

    def count(self, candidate: str, loss: ChildLostError) -> None:
        """Count a loss.

        Raises:
            RefusedError: it is one too many.
        """
        with self._lock:
            count = self._counts.pop(candidate, 0) + 1
            if count < MOST_LOSSES:
                self._counts[candidate] = count
                while len(self._counts) > _REMEMBERED:
                    self._counts.popitem(last=False)
                return
        raise RefusedError(
            loss.gate,
            f"{loss.reason}, for the {count}th time in a row",
            "Give this machine more memory and time, or make the model smaller; then promote it again",
        ) from loss

    def forget(self, candidate: str) -> None:
        """Begin anew: there was a verdict."""
        with self._lock:
            self._counts.pop(candidate, None)
