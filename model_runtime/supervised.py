"""Threads that must live as long as their process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from ferryline.registry.clocks import elapsed

FIRST_PAUSE = 1.0
"""Seconds until a thread that ended by a fault is started again, the first time."""
LAST_PAUSE = 60.0
"""Seconds that the pause grows to."""

log = structlog.get_logger(__name__)


class SupervisedThread:
    """A daemon thread whose work is begun again whenever it ends without being asked to.

    Each end is logged, with its traceback where a fault was the reason.

    Args:
        work: what to do until `stopping` is set; each call starts from what the one before left.
        name: the thread's name.
        stopping: set when the work is to end.
    """

    def __init__(self, work: Callable[[], object], *, name: str, stopping: threading.Event) -> None:
        self._work = work
        self._name = name
        self._stopping = stopping
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.restarts = 0

    def start(self) -> None:
        """Begin the work."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for `timeout` seconds at most; nothing happens if it was never started."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Whether it works, or is about to work again."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            began = elapsed()
            try:
                self._work()
            except Exception:
                pause = _next_pause(pause, elapsed() - began)
                log.exception("a thread ended by a fault", thread=self._name, again_in_seconds=pause)
            else:
                if self._stopping.is_set():
                    return
                pause = _next_pause(pause, elapsed() - began)
                log.error("a thread ended before it was asked to", thread=self._name, again_in_seconds=pause)
            self.restarts += 1
            self._stopping.wait(pause)


def _next_pause(pause: float, worked: float) -> float:
    """Returns twice `pause`; the first one again after work that lasted longer than any pause."""
    return min(pause * 2, LAST_PAUSE) if pause and worked <= LAST_PAUSE else FIRST_PAUSE
