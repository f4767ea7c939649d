"""When a server that is told to stop takes it that callers have turned away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from ferryline.grpc_server import process
from ferryline.grpc_server.process import QUIET_SECONDS, until_quiet


class Clock:
    """Time that passes where the server sleeps, and what callers ask meanwhile.

    Args:
        asking: seconds for which requests keep coming.
    """

    def __init__(self, asking: float) -> None:
        self.seconds = 1000.0
        self._end = self.seconds + asking
        self._asked = 0

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)

    def asked(self) -> int:
        self._asked += self.seconds < self._end
        return self._asked


async def seconds_until_quiet(monkeypatch: pytest.MonkeyPatch, *, asking: float, longest: float) -> float:
    clock = Clock(asking)
    began = clock.seconds
    with monkeypatch.context() as patch:
        patch.setattr(process, "time", clock)
        patch.setattr(process, "asyncio", SimpleNamespace(sleep=clock.sleep))
        await until_quiet(clock.asked, longest)
    return clock.seconds - began


async def test_it_is_quiet_a_moment_after_the_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await seconds_until_quiet(monkeypatch, asking=0, longest=10) == pytest.approx(QUIET_SECONDS)
    taken = await seconds_until_quiet(monkeypatch, asking=0.6, longest=10)
    assert 0.6 <= taken <= 0.6 + 2 * QUIET_SECONDS


async def test_callers_who_go_on_are_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await seconds_until_quiet(monkeypatch, asking=60, longest=0.2)
    assert 0.2 <= taken <= 0.2 + QUIET_SECONDS
    assert await seconds_until_quiet(monkeypatch, asking=60, longest=0) == 0
