"""What stands for the modules `threading` and `time` in code whose threads run in lockstep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tests.simulation.training.lockstep import Lockstep, Player


class SteppedTime:
    """Stands for the module `time`."""

    def __init__(self, steps: Lockstep) -> None:
        self._steps = steps

    def monotonic(self) -> float:
        return self._steps.clock.now

    perf_counter = monotonic

    def time(self) -> float:
        return 1_767_225_600.0 + self._steps.clock.now

    def sleep(self, seconds: float) -> None:
        self._steps.sleep(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class SteppedThreading:
    """Stands for the module `threading`."""

    def __init__(self, steps: Lockstep) -> None:
        self._steps = steps

    def Thread(self, *arguments: Any, **named: Any) -> Thread:  # noqa: N802 - as in the module
        return Thread(self._steps, *arguments, **named)

    def Lock(self) -> Lock:  # noqa: N802
        return Lock(self._steps)

    RLock = Lock

    def Condition(self, lock: Lock | None = None) -> Condition:  # noqa: N802
        return Condition(self._steps, lock)

    def Event(self) -> Event:  # noqa: N802
        return Event(self._steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


class Thread:
    """A thread of a `Lockstep`."""

    def __init__(
        self,
        steps: Lockstep,
        group: None = None,
        target: Callable[..., object] = lambda: None,
        name: str = "thread",
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name
        self.daemon = daemon
        self._steps = steps
        self._run = lambda: target(*args, **(kwargs or {}))
        self._player: Player | None = None

    def start(self) -> None:
        if self._player is not None:
            raise RuntimeError("threads can only be started once")
        self._player = self._steps.start(self.name, lambda: _ignore(self._run()))

    def is_alive(self) -> bool:
        return self._player is not None and not self._player.ended

    def join(self, timeout: float | None = None) -> None:
        if self._player is None:
            raise RuntimeError("cannot join thread before it is started")
        self._steps.wait(lambda: not self.is_alive(), timeout)


class Lock:
    """A lock, which may be taken again by whoever has it, as nobody relies on the contrary."""

    def __init__(self, steps: Lockstep) -> None:
        self._steps = steps
        self._owner: int | None = None
        self._times = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = threading.get_ident()
        if self._owner not in {None, me}:
            if not blocking:
                return False
            if not self._steps.wait(lambda: self._owner is None, None if timeout < 0 else timeout):
                return False
        self._owner = me
        self._times += 1
        return True

    def release(self) -> None:
        self._times -= 1
        if not self._times:
            self._owner = None

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Condition(Lock):
    """A condition variable with a lock of its own."""

    def __init__(self, steps: Lockstep, lock: Lock | None = None) -> None:
        if lock is not None:
            raise NotImplementedError("a condition over a lock of others")
        super().__init__(steps)
        self._news = 0

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        times, self._times, self._owner = self._times, 0, None
        try:
            self._steps.wait(lambda: self._owner is None and bool(predicate()), timeout)
        finally:
            self._owner, self._times = threading.get_ident(), times
        return predicate()

    def wait(self, timeout: float | None = None) -> bool:
        seen = self._news
        return bool(self.wait_for(lambda: self._news > seen, timeout))

    def notify_all(self) -> None:
        self._news += 1

    def notify(self, _count: int = 1) -> None:
        self._news += 1


class Event:
    """An event."""

    def __init__(self, steps: Lockstep) -> None:
        self._steps = steps
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._steps.wait(lambda: self._set, timeout)


def _ignore(_value: object) -> None:
    pass
