"""How a crew keeps its slots filled, without a process: what the system refuses, and who says nothing."""

from __future__ import annotations

import asyncio
import errno
from typing import NoReturn

import pytest

from ferryline.grpc_server.workers import crew as crews
from ferryline.grpc_server.workers import restarts
from ferryline.grpc_server.workers.crew import Crew, Member
from ferryline.grpc_server.workers.messages import Begin, Count, Counted, ToSupervisor
from ferryline.grpc_server.workers.watching import LONGEST_TURN, watch
from ferryline.registry.errors import FerryError


class Deaf:
    """Hears nothing, as there is no worker."""

    def counted(self, worker: Member, message: Counted) -> None:
        raise AssertionError(message)

    def requested(self, worker: Member, message: ToSupervisor) -> None:
        raise AssertionError(message)

    def gone(self, worker: Member) -> None:
        raise AssertionError(worker)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moments when a process was asked for, of a system that has none to give."""
    made: list[float] = []

    async def spawn() -> NoReturn:
        made.append(asyncio.get_running_loop().time())
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(crews, "spawn", spawn)
    return made


def crew() -> Crew:
    return Crew(2, lambda slot: Begin(worker=slot, settings={}, port=1, http_port=None), Deaf())


async def until_as_many(found: list[float], count: int) -> None:
    async with asyncio.timeout(5):
        while len(found) < count:  # noqa: ASYNC110 - what is looked for is a list and tells nobody
            await asyncio.sleep(0)


async def test_a_start_without_processes_fails_with_one_clear_line(tries: list[float]) -> None:
    made = crew()
    made.start()
    with pytest.raises(FerryError, match="no worker can be started: Resource temporarily unavailable; free"):
        await made.failed()
    await made.stop(0)
    assert len(tries) == 2


async def test_a_server_that_has_served_asks_again_for_the_process_that_it_did_not_get(
    tries: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "LONGEST_PAUSE", 0.01)
    made = crew()
    made.started.set()
    made.start()
    failed = asyncio.ensure_future(made.failed())
    await until_as_many(tries, 6)
    assert not failed.done()
    assert tries[2] - tries[0] >= 0.009, "it is not asked without a pause"
    await made.stop(0)
    await failed


async def test_a_stop_does_not_wait_for_a_pause(tries: list[float]) -> None:
    made = crew()
    made.started.set()
    made.start()
    await until_as_many(tries, 2)
    async with asyncio.timeout(restarts.LONGEST_PAUSE / 4):
        await made.stop(60)


class Turns:
    """A crew of which one worker never answers, so that each count takes `waiting` seconds of its clock."""

    def __init__(self, waiting: float) -> None:
        self.now = 100.0
        self.looks: list[float] = []
        self._waiting = waiting

    def number(self) -> int:
        return 1

    async def count(self, question: Count) -> None:
        assert question == Count(round=1)
        self.now += self._waiting

    def look(self, seconds: float) -> None:
        self.looks.append(seconds)


@pytest.mark.parametrize(("waiting", "held_against_them"), [(0.0, 0.0), (1.0, 1.0), (90.0, LONGEST_TURN)])
async def test_silence_is_as_long_as_a_turn_took(waiting: float, held_against_them: float) -> None:
    turns = Turns(waiting)
    watching = asyncio.ensure_future(watch(turns, 0.0, lambda: turns.now))
    await until_as_many(turns.looks, 3)
    watching.cancel()
    assert turns.looks[:3] == [held_against_them] * 3
