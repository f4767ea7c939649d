"""When a server that is told to stop takes it that callers have turned away."""

from __future__ import annotations

import asyncio
import time

from grpc_server.process import QUIET_SECONDS, until_quiet


class Callers:
    """They ask, and at some time ask no more."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._asked = 0

    def asked(self) -> int:
        self._asked += time.monotonic() < self._end
        return self._asked


async def seconds_until_quiet(callers: Callers, longest: float) -> float:
    began = time.monotonic()
    await until_quiet(callers.asked, longest)
    return time.monotonic() - began


async def test_it_is_quiet_a_moment_after_the_last_request() -> None:
    taken = await asyncio.gather(*(seconds_until_quiet(Callers(asking), 10) for asking in (0, 0.6)))
    assert QUIET_SECONDS <= taken[0] < taken[1] < 2
    assert taken[1] >= 0.6


async def test_callers_who_go_on_are_waited_for_only_so_long() -> None:
    assert 0.2 <= await seconds_until_quiet(Callers(60), 0.2) < 2
    assert await seconds_until_quiet(Callers(60), 0) < QUIET_SECONDS
