"""The signals that ask a process to stop: the first lets it end in order, the second ends it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from ferryline.grpc_server.signals import INTERRUPTED, asked_to_stop

STOPS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPS)
async def test_the_first_is_waited_for_and_the_second_is_not_held_up(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    asked = asyncio.ensure_future(asked_to_stop())
    await asyncio.sleep(0)  # it has begun to wait
    assert not asked.done()
    os.kill(os.getpid(), number)
    await asked
    assert ends == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "a second one ends the process"
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0)  # handlers run between two steps of the interpreter
    assert ends == [INTERRUPTED]
