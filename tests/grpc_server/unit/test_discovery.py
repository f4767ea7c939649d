"""A server that serves every model of a registry that has a channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.discovery import Discovery
from ferryline.grpc_server.following import Following
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.settings import ServerSettings
from ferryline.registry import Registry
from ferryline.registry.errors import StoreUnreachableError
from ferryline.registry.hints import Hint, ModelHint
from ferryline.registry.keys import HINT
from ferryline.registry.names import ModelReference
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import FaultyStore
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop
from tests.support.waiting import DEADLINE


class Desk:
    """What a server with --all is made of."""

    def __init__(self, shop: Shop, folder: Path, *references: str) -> None:
        settings = ServerSettings(
            cache=folder / "cache", state=folder / "state", server_poll_seconds=0.01, server_all=True
        )
        named = [ModelReference.parse(text) for text in references]
        self.following = Following(shop.registry, settings, named)
        self.models = Models(self.following.channels)
        self.models.complete = False
        self.news = asyncio.Event()

    def start(self) -> None:
        self.following.start(self.news.set, self.appeared)

    def appeared(self, channels: Sequence[FollowedChannel]) -> None:
        for channel in channels:
            self.models.add(channel)
        self.models.complete = True

    def serving(self) -> dict[str, int]:
        channels = self.models.channels()
        return {str(each): each.current.served.version for each in channels if each.current is not None}

    async def until(self, serving: dict[str, int]) -> None:
        async with asyncio.timeout(DEADLINE):
            while self.serving() != serving:
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def desk(shop: Shop, tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(shop, tmp_path)
    yield made
    await made.following.stop()


async def test_all_that_have_the_channel_are_served(shop: Shop, desk: Desk) -> None:
    for name in ("a", "b"):
        shop.publish(name, model_files.plus(1))
    shop.publish("c", model_files.plus(1), promote=False)
    shop.registry.promote("c", 1, channel="staging")
    desk.start()
    assert not desk.models.ready
    await desk.until({"a:production": 1, "b:production": 1})
    assert desk.models.ready


async def test_a_new_model_appears_through_the_hint_and_keeps_the_server_ready(
    shop: Shop, desk: Desk
) -> None:
    shop.publish("a", model_files.plus(1))
    desk.start()
    await desk.until({"a:production": 1})
    shop.publish("b", model_files.plus(2))
    await desk.until({"a:production": 1, "b:production": 1})
    shop.publish("b", model_files.plus(3))
    await desk.until({"a:production": 1, "b:production": 2})
    assert desk.models.ready


async def test_a_model_that_cannot_serve_does_not_keep_the_others_waiting(shop: Shop, desk: Desk) -> None:
    shop.publish("a", model_files.plus(1))
    shop.publish("bad", model_files.plus(1))
    blob = shop.registry.versions("bad").get(1).blob
    other = shop.registry.versions("a").get(1).blob
    assert blob.digest == other.digest
    shop.publish("bad", model_files.plus(9))
    damaged = shop.registry.versions("bad").get(2).blob.digest.removeprefix("sha256:")
    shop.store.put(f"blobs/sha256/{damaged}", b"no model")
    desk.start()
    await desk.until({"a:production": 1, "bad:production": 1})  # what a rollback would lead to
    assert desk.models.ready


async def test_an_empty_registry_is_served_as_it_is(desk: Desk) -> None:
    desk.start()
    async with asyncio.timeout(DEADLINE):
        while not desk.models.ready:
            desk.news.clear()
            await desk.news.wait()
    assert list(desk.models) == []


async def test_what_was_named_is_not_found_again(shop: Shop, tmp_path: Path) -> None:
    shop.publish("a", model_files.plus(1))
    shop.registry.promote("a", 1, channel="staging")
    desk = Desk(shop, tmp_path, "a:staging", "later")
    desk.start()
    await desk.until({"a:staging": 1, "a:production": 1})
    assert desk.models.get("a").default.name == "staging"
    assert not desk.models.ready  # for `later` was named
    shop.publish("later", model_files.plus(1))
    await desk.until({"a:staging": 1, "a:production": 1, "later:production": 1})
    assert desk.models.ready
    await desk.following.stop()


def test_a_hint_is_only_a_hint(shop: Shop) -> None:
    found: list[list[str]] = []
    discovery = Discovery(shop.registry, "production", [], lambda names: found.append(list(names)))
    discovery.look([])
    assert found == [[]]  # the first look tells, be it of nothing
    wrong = Hint(models={name: ModelHint(channels={"production": 3}) for name in ("none", "NO NAME", "..")})
    discovery.hinted(wrong)
    discovery.look(discovery._hinted)
    assert found == [[]]
    shop.publish("a", model_files.plus(1))
    discovery.look(["a", "none"])
    discovery.look(["a"])
    assert found == [[], ["a"]]


def test_what_no_hint_told_of_is_listed(shop: Shop) -> None:
    shop.publish("a", model_files.plus(1))
    shop.store.delete(HINT)
    found: list[str] = []
    discovery = Discovery(shop.registry, "production", ["b"], found.extend)
    discovery.look(discovery._all())
    assert found == ["a"]


def test_a_store_that_is_away_is_the_threads_to_bear(shop: Shop) -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    discovery = Discovery(Registry(store), "production", [], lambda _names: None)
    with pytest.raises(StoreUnreachableError):
        discovery.look(discovery._all())
