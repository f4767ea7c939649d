"""A crew of real workers, asked directly: what they cannot load, and what it costs to die over a version."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ferryline.grpc_server.settings import ServerSettings
from ferryline.grpc_server.workers import crew as crews
from ferryline.grpc_server.workers.crew import Crew, Member
from ferryline.grpc_server.workers.messages import (
    Begin,
    Count,
    Counted,
    Followed,
    Prepare,
    Release,
    ToSupervisor,
)
from ferryline.grpc_server.workers.ports import reserved
from ferryline.grpc_server.workers.rounds import Agreed, Deadly, Objected
from ferryline.grpc_server.workers.watching import watch
from ferryline.model_runtime.facts import read_facts
from ferryline.registry import Registry
from ferryline.registry.documents import GoldenRows, TrainingRecord
from ferryline.registry.stores.memory import MemoryStore
from tests.grpc_server import model_files

SIZE = 2
ROWS = [[1.0, 2.0, 3.0, 4.0]]


class Listener:
    """Hears workers, and keeps what they counted."""

    def __init__(self) -> None:
        self.last: dict[int, Counted] = {}
        self.lost: list[int] = []

    def counted(self, worker: Member, message: Counted) -> None:
        self.last[worker.slot] = message

    def requested(self, worker: Member, message: ToSupervisor) -> None:
        raise AssertionError(message)

    def gone(self, worker: Member) -> None:
        self.lost.append(worker.slot)


@asynccontextmanager
async def crew() -> AsyncIterator[tuple[Crew, Listener]]:
    listener = Listener()
    settings = ServerSettings(server_models=("m",), server_drain_seconds=1).model_dump(mode="json")
    with reserved("127.0.0.1", 0, "--port") as port, reserved("127.0.0.1", 0, "--http-port") as http_port:
        made = Crew(
            SIZE,
            lambda slot: Begin(worker=slot, settings=settings, port=port, http_port=http_port),
            listener,
        )
        made.tell(Followed(model="m", channel="production", need="SERVES"))
        made.start()
        try:
            async with asyncio.timeout(60):
                await made.started.wait()
            yield made, listener
        finally:
            await made.stop(1)


async def all_listen(crew: Crew) -> None:
    async with asyncio.timeout(60):
        while crew.listening < SIZE:  # noqa: ASYNC110 - a crew tells nobody of a replacement
            await asyncio.sleep(0.05)


def question(crew: Crew, path: Path, *, golden: float | None = None) -> Prepare:
    """A version that adds 1, with golden rows that say it adds `golden`."""
    registry = Registry(MemoryStore(), actor="tester")
    data = model_files.plus(1)
    if not path.exists():
        path.write_bytes(data)
    rows = None
    if golden is not None:
        outputs = {"y": [[value + golden for value in row] for row in ROWS]}
        rows = GoldenRows(inputs={"x": ROWS}, outputs=outputs, absolute_tolerance=1e-6)
    manifest = registry.publish("m", data, read_facts(data), TrainingRecord(golden=rows))
    entry = registry.promote("m", manifest.version)
    return Prepare(round=crew.number(), entry=entry, manifest=manifest, path=str(path))


async def test_what_all_can_load_is_agreed_on_and_what_one_cannot_is_not(tmp_path: Path) -> None:
    async with crew() as (made, listener):
        assert await made.ask(question(made, tmp_path / "good", golden=1), 30) == Agreed()
        verdict = await made.ask(question(made, tmp_path / "good", golden=2), 30)
        assert isinstance(verdict, Objected)
        assert verdict.objection.gate == "golden-rows"
        (tmp_path / "broken").write_bytes(b"no model")
        verdict = await made.ask(question(made, tmp_path / "broken"), 30)
        assert isinstance(verdict, Objected)
        # no gate's: what passed the gate and cannot be loaded is tried again
        assert verdict.objection.gate is None
        assert "could not be loaded" in verdict.objection.reason
        await made.count(Count(round=made.number()), 10)
        assert sorted(listener.last) == [1, 2]
        assert all(counted.resident_bytes > 2**20 for counted in listener.last.values())
        assert (made.restarts, listener.lost, made.listening) == (0, [], SIZE)


async def test_a_worker_that_does_not_answer_is_replaced_and_does_not_hold_up_the_others(
    tmp_path: Path,
) -> None:
    async with crew() as (made, listener):
        stuck = made.members[0]
        os.kill(stuck.process.pid, signal.SIGSTOP)
        assert await made.ask(question(made, tmp_path / "good"), 2) == Agreed()
        assert listener.lost == [stuck.slot]
        await all_listen(made)
        assert stuck.process.returncode == -signal.SIGKILL
        assert made.restarts == 1


async def test_a_worker_that_hangs_is_replaced_in_time_though_each_count_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crews, "SILENT_SECONDS", 3.0)
    async with crew() as (made, listener):
        watching = asyncio.ensure_future(watch(made, 0.25))
        stuck = made.members[0]
        began = time.monotonic()
        os.kill(stuck.process.pid, signal.SIGSTOP)
        async with asyncio.timeout(60):
            while stuck.slot not in listener.lost:  # noqa: ASYNC110 - it is told to a list
                await asyncio.sleep(0.05)
        # 12 looks, of which each comes 1.25 s after the one before
        assert 2.5 < time.monotonic() - began < 12
        monkeypatch.undo()  # the next one may take its time to start
        await all_listen(made)
        watching.cancel()
        assert (made.restarts, listener.lost) == (1, [stuck.slot])


async def test_a_version_over_which_all_workers_die_is_no_version_to_serve(tmp_path: Path) -> None:
    async with crew() as (made, _):
        for member in made.members:
            os.kill(member.process.pid, signal.SIGSTOP)
        deadly = question(made, tmp_path / "deadly")
        assert await made.ask(deadly, 1) == Deadly(SIZE)
        made.tell(Release(session=deadly.round))
        await all_listen(made)
        # they were held against the version: many more may die so before the server gives up
        assert await made.ask(question(made, tmp_path / "good"), 30) == Agreed()
