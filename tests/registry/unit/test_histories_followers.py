"""Followers of a log that others had their hands in, or of a store that lies: they serve on and tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ferryline.model_runtime.follower import Follower, FollowerSettings
from ferryline.registry import Registry, keys
from ferryline.registry.stores import Store, Stored
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Damage, Harm, Wrapper
from tests.onnx_models import inspect_model, linear_classifier
from tests.registry.histories import CHANNEL, MODEL
from tests.support.waiting import wait_for

PREFIX = keys.channel(MODEL, CHANNEL)


def key(generation: int) -> str:
    return f"{PREFIX}{generation:010d}.json"


@pytest.fixture
def registry() -> Registry:
    """Three versions, of which the first two served in turn: three generations."""
    made = Registry(MemoryStore(), actor="tester")
    for winner in range(3):
        data = linear_classifier(winner=winner)
        made.publish(MODEL, data, inspect_model(data))
    for version in (1, 2, 1):
        made.promote(MODEL, version)
    return made


class Followers:
    """Starts followers, and stops them when the test is over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[Follower] = []

    def start(self, store: Store) -> Follower:
        follower = Follower(
            Registry(store, actor="follower"),
            MODEL,
            cache=self._folder / f"cache-{len(self.started)}",
            settings=FollowerSettings(poll_interval=0.01, whole_interval=0.05),
        )
        self.started.append(follower)
        follower.start()
        return follower


@pytest.fixture
def followers(tmp_path: Path) -> Iterator[Followers]:
    made = Followers(tmp_path)
    yield made
    for follower in made.started:
        follower.stop()


def serving(follower: Follower) -> tuple[int, int]:
    served = follower.current
    return (served.generation, served.version) if served else (0, 0)


def test_a_log_replaced_under_a_follower_is_told_of_and_not_followed(
    registry: Registry, followers: Followers
) -> None:
    follower = followers.start(registry.store)
    wait_for(lambda: serving(follower) == (3, 1), "generation 3")
    for generation in (2, 3):
        registry.store.delete(key(generation))
    for version in (3, 3, 3):
        registry.promote(MODEL, version)  # generations 2, 3 and 4 of another history
    wait_for(lambda: "altered or replaced" in (follower.report().last_error or ""), "what is told")
    assert serving(follower) == (3, 1)


def test_a_follower_of_a_replaced_log_follows_it_once_started_anew(
    registry: Registry, followers: Followers
) -> None:
    for generation in (2, 3):
        registry.store.delete(key(generation))
    registry.promote(MODEL, 3)
    follower = followers.start(registry.store)
    wait_for(lambda: serving(follower) == (2, 3), "generation 2")


def test_an_entry_that_cannot_be_read_is_told_of_and_its_successor_is_not_followed_blindly(
    registry: Registry, followers: Followers
) -> None:
    follower = followers.start(registry.store)
    wait_for(lambda: serving(follower) == (3, 1), "generation 3")
    registry.store.put(key(4), b'{"schema_version":"2.0"}')
    wait_for(lambda: "upgrade ferryline" in (follower.report().last_error or ""), "what is told")
    assert serving(follower) == (3, 1)
    registry.store.delete(key(4))  # somebody takes the newer program's entry back
    registry.promote(MODEL, 2)
    wait_for(lambda: serving(follower) == (4, 2), "generation 4")
    assert follower.report().last_error is None


def test_a_hole_above_a_follower_is_told_of(registry: Registry, followers: Followers) -> None:
    follower = followers.start(registry.store)
    wait_for(lambda: serving(follower) == (3, 1), "generation 3")
    entry = registry.promote(MODEL, 2, dry_run=True)
    registry.store.put(key(5), replace_generation(entry.encode()))
    wait_for(lambda: follower.report().last_error, "what is told")


def replace_generation(data: bytes) -> bytes:
    return data.replace(b'"generation":4', b'"generation":5')


def test_a_log_cut_below_a_follower_is_told_of(registry: Registry, followers: Followers) -> None:
    follower = followers.start(registry.store)
    wait_for(lambda: serving(follower) == (3, 1), "generation 3")
    for generation in (2, 3):
        registry.store.delete(key(generation))
    wait_for(lambda: follower.report().last_error, "what is told")


# --- answers that come damaged once ---------------------------------------------------------------


class _DamagedOnce(Wrapper):
    """Does `harm` to the first answer to a read below `prefix`."""

    def __init__(self, inner: Store, prefix: str, harm: Harm) -> None:
        super().__init__(inner)
        self._prefix = prefix
        self._harms = [harm]

    def get(self, key: str) -> Stored:
        stored = self.inner.get(key)
        if key.startswith(self._prefix) and self._harms:
            return replace(stored, data=self._harms.pop()(stored.data))
        return stored


@pytest.mark.parametrize("damage", [Damage.FLIPPED, Damage.CUT, Damage.EMPTY])
@pytest.mark.parametrize("prefix", [PREFIX, keys.versions(MODEL), "blobs/"])
def test_one_damaged_answer_keeps_no_good_version_from_serving(
    registry: Registry, followers: Followers, prefix: str, damage: Damage
) -> None:
    follower = followers.start(_DamagedOnce(registry.store, prefix, Harm(damage, 1003)))
    wait_for(lambda: serving(follower) == (3, 1), "generation 3")
