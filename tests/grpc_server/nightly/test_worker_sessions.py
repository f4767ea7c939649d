"""A worker's sessions, with real models and without a supervisor: where they end."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ferryline.grpc_server.models import Models
from ferryline.grpc_server.workers.led import LedChannel, LedModels
from ferryline.grpc_server.workers.messages import Done, Left, Offer, Prepare, Release, ToSupervisor, Warm
from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.follower.loading import LocalLoader
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.names import ModelReference
from ferryline.registry.stores.memory import MemoryStore
from tests.grpc_server import model_files

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Worker:
    """As much of one as loads, and on which threads its sessions ended."""

    folder: Path
    channel: LedChannel = field(default_factory=lambda: LedChannel(ModelReference("m")))
    registry: Registry = field(default_factory=lambda: Registry(MemoryStore(), actor="tester"))
    said: asyncio.Queue[ToSupervisor] = field(default_factory=asyncio.Queue)
    ends: list[str] = field(default_factory=list)
    entries: dict[int, ChannelEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        models = Models([self.channel])
        self.led = LedModels(models, [self.channel], self.said.put_nowait, lambda: None)

    def prepare(self, number: int) -> None:
        data = model_files.plus(number)
        path = self.folder / str(number)
        path.write_bytes(data)
        manifest = self.registry.publish("m", data, read_facts(data))
        self.entries[number] = self.registry.promote("m", manifest.version)
        self.led.hear(Prepare(round=number, entry=self.entries[number], manifest=manifest, path=str(path)))

    def offer(self, *numbers: int) -> None:
        warm = tuple(Warm(session=number, entry=self.entries[number], since=NOW) for number in numbers)
        self.led.hear(Offer(round=100, model="m", channel="production", warm=warm, seconds=0))

    async def done(self, number: int) -> None:
        async with asyncio.timeout(10):
            assert await self.said.get() == Done(round=number)

    async def ended(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.ends) < count:  # noqa: ASYNC110 - a session that ends tells a list
                await asyncio.sleep(0.001)


@pytest.fixture
async def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    made = Worker(tmp_path)
    warm = LocalLoader.warm

    def watched(loader: LocalLoader, session: OnnxSession, manifest: Manifest) -> None:
        weakref.finalize(session, lambda: made.ends.append(threading.current_thread().name))
        warm(loader, session, manifest)

    monkeypatch.setattr(LocalLoader, "warm", watched)
    yield made
    made.led.close()


async def serving(worker: Worker, *numbers: int) -> None:
    for number in numbers:
        worker.prepare(number)
        await worker.done(number)
    worker.offer(*reversed(numbers))
    await worker.done(100)


async def test_a_session_that_is_let_go_ends_on_the_thread_that_loads(worker: Worker) -> None:
    await serving(worker, 1, 2)
    assert sorted(worker.channel.by_version) == [1, 2]
    worker.led.hear(Release(session=1))
    await worker.ended(1)
    assert worker.ends == ["load_0"]
    assert sorted(worker.channel.by_version) == [2]


async def test_a_session_that_nobody_wants_any_more_once_it_is_loaded_ends_there_too(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, released = threading.Event(), threading.Event()
    load = LocalLoader.load

    def slow(loader: LocalLoader, entry: ChannelEntry, manifest: Manifest, path: Path) -> OnnxSession:
        loading.set()
        assert released.wait(10)
        return load(loader, entry, manifest, path)

    monkeypatch.setattr(LocalLoader, "load", slow)
    worker.prepare(1)
    assert await asyncio.to_thread(loading.wait, 10)
    worker.led.hear(Release(session=1))
    released.set()
    await worker.ended(1)
    assert worker.ends == ["load_0"]


async def test_a_channel_that_is_left_holds_no_session(worker: Worker) -> None:
    await serving(worker, 1)
    worker.led.hear(Left(model="m", channel="production"))
    worker.led.hear(Release(session=1))
    await worker.ended(1)
    assert worker.ends == ["load_0"]
    assert worker.channel.current is None
