"""Models loaded and unloaded by request, on real followers over a registry in memory."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferryline.grpc_server import trials
from ferryline.grpc_server.call import UNBOUNDED
from ferryline.grpc_server.control import ExplicitModels
from ferryline.grpc_server.endpoint import endpoints
from ferryline.grpc_server.errors import InvalidRequestError, NotServedError, RequestError
from ferryline.grpc_server.following import MOST_DIRECT, Following
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.repository import RepositoryHandlers
from ferryline.grpc_server.settings import ServerSettings
from ferryline.protos import grpc_service_pb2 as pb
from ferryline.registry.names import ModelReference
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, float_output, inline_executor, raw_request
from tests.support.waiting import DEADLINE, wait_for_async

ROW = np.ones((1, 4), np.float32)


class Desk:
    """What a server in explicit mode is made of."""

    def __init__(
        self, shop: Shop, folder: Path, aside: Sequence[ModelReference] = (), **settings: Any
    ) -> None:
        folders = {"cache": folder / "cache", "state": folder / "state"}
        self.following = Following(
            shop.registry, ServerSettings(**folders, server_poll_seconds=0.01, **settings), [], aside
        )
        self.models = Models([])
        self.control = ExplicitModels(self.models, self.following.follow, self.following.leave)
        _, found = endpoints(self.models, self.control, executor=inline_executor())
        self.infer = next(rpc for rpc in found if rpc.name == "ModelInfer")
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    def index(self) -> list[tuple[str, str, str]]:
        reply = RepositoryHandlers(self.models, self.control).index(pb.RepositoryIndexRequest())
        return [(each.name, each.state, each.reason) for each in reply.models]

    async def until_plus(self, model: str, number: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while await self.plus(model) != number:
                await turns(1)

    async def plus(self, model: str) -> float:
        answer = self.infer(raw_request(model, x=ROW).SerializeToString())
        data = answer if isinstance(answer, bytes) else await answer
        return float(float_output(pb.ModelInferResponse.FromString(data))[0, 0] - 1)


@pytest.fixture
async def desk(shop: Shop, tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(shop, tmp_path)
    made.following.start(made.changed)
    yield made
    await made.following.stop()


async def test_a_model_is_loaded_unloaded_and_loaded_again(shop: Shop, desk: Desk) -> None:
    shop.publish("m", model_files.plus(1))
    with pytest.raises(NotServedError, match="no model 'm' here; this server serves none"):
        await desk.plus("m")
    await desk.control.load("m", UNBOUNDED)
    assert [await desk.plus("m") for _ in range(3)] == [1, 1, 1]
    assert desk.index() == [("m", "READY", "")]

    await desk.control.unload("m")
    # the short way for plain requests must not remember it
    with pytest.raises(NotServedError):
        await desk.plus("m")
    assert desk.index() == [("m", "UNAVAILABLE", "unloaded")]
    shop.publish("m", model_files.plus(2))
    await desk.control.load("m", UNBOUNDED)
    assert [await desk.plus("m") for _ in range(2)] == [2, 2]
    assert desk.index() == [("m", "READY", "")]
    await asyncio.sleep(0)
    assert desk.changes >= 3


async def test_a_channel_can_be_named_and_another_is_refused_while_it_serves(shop: Shop, desk: Desk) -> None:
    version = shop.publish("m", model_files.plus(3), promote=False)
    shop.registry.promote("m", version, channel="staging")
    await desk.control.load("m:staging", UNBOUNDED)
    assert await desk.plus("m") == 3
    await desk.control.load("m:staging", UNBOUNDED)  # once more is no fault
    with pytest.raises(InvalidRequestError, match="failed to load 'm': nothing is promoted in its channel"):
        await desk.control.load("m", UNBOUNDED)
    assert await desk.plus("m") == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "failed to load 'nothing': nothing is promoted in its channel"),
        ("m@1", "a server follows a channel"),
        ("NO WAY", "failed to load 'NO WAY'"),
        ("", "failed to load ''"),
    ],
)
async def test_what_cannot_be_loaded_is_said_and_leaves_nothing_behind(
    desk: Desk, name: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        await desk.control.load(name, UNBOUNDED)
    assert desk.index() == []
    assert desk.following.channels == []
    assert not desk.control._turns


async def test_an_unknown_model_cannot_be_unloaded(desk: Desk) -> None:
    with pytest.raises(NotServedError, match="failed to unload 'm'"):
        await desk.control.unload("m")


async def test_loads_and_unloads_of_one_model_at_once_end_in_one_of_both(shop: Shop, desk: Desk) -> None:
    shop.publish("m", model_files.plus(1))
    calls = [
        desk.control.load("m", UNBOUNDED) if turn % 2 == 0 else desk.control.unload("m") for turn in range(9)
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert all(each is None or isinstance(each, RequestError) for each in found), found
    assert await desk.plus("m") == 1  # the calls take turns, and a load was the last
    assert len(desk.following.channels) == 1
    assert not desk.control._turns


async def test_turns_never_overlap_whoever_comes_between_two_of_them(desk: Desk) -> None:
    inside: list[int] = []

    async def take(number: int) -> None:
        async with desk.control._turn("m"):
            inside.append(number)
            await turns(3)
            assert inside == [number]
            inside.clear()

    takers = []
    for number in range(30):
        takers.append(asyncio.ensure_future(take(number)))
        await turns(number % 4)  # some come just when one has the turn handed on and does not run yet
    await asyncio.gather(*takers)
    assert not desk.control._turns


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_unloaded_model_is_freed_at_once(
    shop: Shop, tmp_path: Path, no_collector: None, looks: Looks
) -> None:
    # so many that a watch wakes them
    aside = [ModelReference(f"other-{number}") for number in range(MOST_DIRECT + 1)]
    desk = Desk(shop, tmp_path, aside, server_fall_back=True)
    desk.following.start(desk.changed)
    shop.publish("m", model_files.plus(1))
    await desk.control.load("m", UNBOUNDED)
    shop.publish("m", model_files.plus(2))
    await desk.until_plus("m", 2)
    (channel,) = desk.following.channels
    sessions = [weakref.ref(served.session) for served in channel.follower.warm]
    follower = weakref.ref(channel.follower)
    assert len(sessions) == 2
    await looks.wait()
    del channel

    await desk.control.unload("m")
    assert [session() for session in sessions] == [None, None]
    async with asyncio.timeout(DEADLINE):
        while gc.collect() >= 0 and follower() is not None:
            await turns(1)
    await desk.following.stop()


class Looks:
    """The looks at the versions on trial."""

    def __init__(self) -> None:
        self._count = 0

    def noted(self, look: Callable[[Iterable[trials.TrialJudge]], None]) -> Callable[..., None]:
        def note(judges: Iterable[trials.TrialJudge]) -> None:
            look(judges)
            self._count += 1

        return note

    async def wait(self) -> None:
        """Return after a look that begins now or later."""
        seen = self._count
        await wait_for_async(lambda: self._count > seen, "a look at the trial")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(trials, "_look_at", made.noted(trials._look_at))
    return made


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed is freed by its last holder."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_a_load_ends_with_its_callers_deadline(shop: Shop, desk: Desk) -> None:
    class Hurried:
        def seconds_left(self) -> float:
            return 0.0

        def answered_by(self, provenance: object) -> None:
            raise AssertionError("nothing was answered")

    shop.publish("m", model_files.plus(1))
    with pytest.raises(InvalidRequestError, match="it took too long"):
        await desk.control.load("m", Hurried())
    assert desk.index() == []
