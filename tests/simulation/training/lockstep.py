"""Threads that run one at a time on a clock that stands still while they do: the same order each time.

Code that uses `threading` and `time` is given those of a `Lockstep` in their place. Then a thread runs until
it waits, sleeps or passes a point; who is next is drawn from a seeded generator; and where all wait, the
clock jumps to the first of their deadlines.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

_SWITCH = 0.25  # of the points passed, how many let another thread go on
_PATIENCE = (
    60.0  # seconds of the real clock after which a thread that does not hand over is a fault of a test
)


class KilledError(BaseException):
    """The process was killed: whatever runs in it ends, and nothing that it does on the way has an effect."""


class StuckError(Exception):
    """Every thread waits, and none of them for a moment that comes."""


class _Player:
    """A thread, and what it waits for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = threading.Lock()  # free while it is this one's turn and not taken up yet
        self.turn.acquire()
        self.until: Callable[[], bool] | None = None
        self.deadline = float("inf")
        self.ended = False

    def is_ready(self, now: float) -> bool:
        return not self.ended and (self.until is None or now >= self.deadline or self.until())


class Lockstep:
    """One process: its threads, and its end.

    Args:
        clock: shared by the processes of a history.
        choices: draws who is next.
        at_point: called at every point that a thread passes, with its name.
    """

    def __init__(
        self, clock: Clock, choices: random.Random, at_point: Callable[[str], None] = lambda _name: None
    ) -> None:
        self.clock = clock
        self.killed = False
        self.died: list[BaseException] = []
        self._choices = choices
        self._at_point = at_point
        self._main = _Player("main")
        self._players = [self._main]
        self._of_thread = {threading.get_ident(): self._main}

    def point(self, name: str) -> None:
        """A moment at which the process may be killed, and another thread may go on.

        Raises:
            KilledError: it was killed.
        """
        me = self._me()
        if me is None:
            return
        self.require_alive()
        self._at_point(name)
        self.require_alive()
        if len(self._players) > 1 and self._choices.random() < _SWITCH:
            self._go_on(me)

    def require_alive(self) -> None:
        """Return while the process lives.

        Raises:
            KilledError: it was killed.
        """
        if self.killed:
            raise KilledError

    def wait(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let others run until `until()` holds, for at most `timeout` seconds; returns whether it holds.

        Raises:
            KilledError: the process was killed meanwhile.
        """
        me = self._me()
        if me is None:
            raise RuntimeError("a thread that is no part of the simulation waits for one that is")
        self.require_alive()
        me.until, me.deadline = until, self.clock.now + (float("inf") if timeout is None else timeout)
        self._go_on(me)
        me.until, me.deadline = None, float("inf")
        return until()

    def sleep(self, seconds: float) -> None:
        """Let others run until `seconds` are over."""
        self.wait(lambda: False, seconds)

    def start(self, name: str, run: Callable[[], None]) -> _Player:
        """Begin a thread; it runs when its turn comes."""
        player = _Player(name)
        thread = threading.Thread(target=self._live, args=(player, run), name=name, daemon=True)
        self._players.append(player)
        thread.start()
        return player

    def end(self) -> None:
        """End the process, and every thread of it where it is."""
        self.killed = True
        for player in self._players:
            while player is not self._main and not player.ended:
                self._hand_over(self._main, player)

    def _live(self, player: _Player, run: Callable[[], None]) -> None:
        _take(player)
        self._of_thread[threading.get_ident()] = player
        try:
            self.require_alive()
            run()
        except KilledError:
            pass
        except BaseException as error:  # noqa: BLE001 - what ends a thread is what is looked for
            self.died.append(error)
        player.ended = True
        del self._of_thread[threading.get_ident()]
        self._heir().turn.release()

    def _heir(self) -> _Player:
        """Who goes on after a thread has ended."""
        if self.killed:
            return self._main
        try:
            return self._next()
        except StuckError as error:
            self.killed = True
            self.died.append(error)
            return self._main

    def _me(self) -> _Player | None:
        return self._of_thread.get(threading.get_ident())

    def _go_on(self, me: _Player) -> None:
        following = self._next()
        if following is not me:
            self._hand_over(me, following)
        self.require_alive()

    def _next(self) -> _Player:
        ready = [player for player in self._players if player.is_ready(self.clock.now)]
        if not ready:
            moment = min(player.deadline for player in self._players if not player.ended)
            if moment == float("inf"):
                raise StuckError(", ".join(player.name for player in self._players if not player.ended))
            self.clock.now = moment
            ready = [player for player in self._players if player.is_ready(moment)]
        return ready[0] if len(ready) == 1 else self._choices.choice(ready)

    def _hand_over(self, me: _Player, following: _Player) -> None:
        following.turn.release()
        _take(me)


class Clock:
    """What time it is, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0


def _take(player: _Player) -> None:
    if not player.turn.acquire(timeout=_PATIENCE):
        raise RuntimeError(f"{player.name} never had its turn")


# --- what stands for the modules ------------------------------------------------------------------


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
        self._player: _Player | None = None

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
