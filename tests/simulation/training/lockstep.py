"""Threads that run one at a time on a clock that stands still while they do: the same order each time.

A thread runs until it waits, sleeps or passes a point; who is next is drawn from a seeded generator; and
where all wait, the clock jumps to the first of their deadlines. What stands for the modules `threading` and
`time` lies in `stepped_modules`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

_SWITCH = 0.12  # of the points passed, how many let another thread go on
_PATIENCE = (
    60.0  # seconds of the real clock after which a thread that does not hand over is a fault of a test
)


class KilledError(BaseException):
    """The process was killed: whatever runs in it ends, and nothing that it does on the way has an effect."""


class StuckError(Exception):
    """Every thread waits, and none of them for a moment that comes."""


class Player:
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
        self._main = Player("main")
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

    def start(self, name: str, run: Callable[[], None]) -> Player:
        """Begin a thread; it runs when its turn comes."""
        player = Player(name)
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

    def _live(self, player: Player, run: Callable[[], None]) -> None:
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

    def _heir(self) -> Player:
        """Who goes on after a thread has ended."""
        if self.killed:
            return self._main
        try:
            return self._next()
        except StuckError as error:
            self.killed = True
            self.died.append(error)
            return self._main

    def _me(self) -> Player | None:
        return self._of_thread.get(threading.get_ident())

    def _go_on(self, me: Player) -> None:
        following = self._next()
        if following is not me:
            self._hand_over(me, following)
        self.require_alive()

    def _next(self) -> Player:
        ready = [player for player in self._players if player.is_ready(self.clock.now)]
        if not ready:
            moment = min(player.deadline for player in self._players if not player.ended)
            if moment == float("inf"):
                raise StuckError(", ".join(player.name for player in self._players if not player.ended))
            self.clock.now = moment
            ready = [player for player in self._players if player.is_ready(moment)]
        return ready[0] if len(ready) == 1 else self._choices.choice(ready)

    def _hand_over(self, me: Player, following: Player) -> None:
        following.turn.release()
        _take(me)


class Clock:
    """What time it is, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0


def _take(player: Player) -> None:
    if not player.turn.acquire(timeout=_PATIENCE):
        raise RuntimeError(f"{player.name} never had its turn")
