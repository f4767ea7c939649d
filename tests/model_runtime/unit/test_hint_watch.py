"""Followers that look rarely, woken by the hint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ferryline.model_runtime.follower import Follower, FollowerSettings
from ferryline.model_runtime.hint_watch import HintWatch
from ferryline.registry import Registry
from ferryline.registry.errors import StoreUnreachableError
from ferryline.registry.keys import HINT
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import FaultyStore
from tests.model_runtime.following import Witness
from tests.onnx_models import inspect_model, linear_classifier

NAMES = ("a", "b", "c")


class Fleet:
    """Followers of three models that would look once an hour, and their watch."""

    def __init__(self, folder: Path) -> None:
        self.memory = MemoryStore()
        self.store = FaultyStore(self.memory)
        self.registry = Registry(self.memory, actor="tester")
        self.witnesses = {name: Witness() for name in NAMES}
        self.followers = {
            name: Follower(
                Registry(self.store),
                name,
                cache=folder,
                settings=FollowerSettings(poll_interval=3600),
                observer=self.witnesses[name],
            )
            for name in NAMES
        }
        self.watch = HintWatch(self.store, list(self.followers.values()), interval=0.01)

    def promote(self, name: str, winner: int = 0) -> int:
        data = linear_classifier(winner=winner)
        version = self.registry.publish(name, data, inspect_model(data)).version
        return self.registry.promote(name, version).generation

    def expect(self, name: str, generation: int) -> None:
        self.witnesses[name].wait(lambda witness: (generation, generation) in witness.swaps)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    for name in NAMES:
        made.promote(name)
    for follower in made.followers.values():
        follower.start()
    for name in NAMES:
        made.expect(name, 1)
    yield made
    made.watch.stop()
    for follower in made.followers.values():
        follower.stop()


def test_a_promotion_wakes_its_follower(fleet: Fleet) -> None:
    fleet.watch.start()
    fleet.promote("b", winner=1)
    fleet.expect("b", 2)
    fleet.promote("c", winner=1)
    fleet.expect("c", 2)


def test_who_is_forgotten_is_woken_no_more(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[Follower] = []
    wake = Follower.wake

    def noted(follower: Follower) -> None:
        woken.append(follower)
        wake(follower)

    monkeypatch.setattr(Follower, "wake", noted)
    fleet.watch.forget(fleet.followers["b"])
    for name in ("a", "b"):
        fleet.promote(name, winner=1)
    fleet.watch.look()
    fleet.expect("a", 2)
    assert woken == [fleet.followers["a"]]


def test_nothing_new_costs_one_request_whatever_the_number_of_models(fleet: Fleet) -> None:
    fleet.watch.look()
    before = fleet.store.requests
    for _ in range(5):
        fleet.watch.look()
    assert fleet.store.requests == before + 5
    assert {name: len(witness.swaps) for name, witness in fleet.witnesses.items()} == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"\xff"])
def test_without_a_hint_to_go_by_all_look_for_themselves(fleet: Fleet, damage: bytes) -> None:
    fleet.promote("a", winner=1)
    fleet.memory.put(HINT, damage) if damage else fleet.memory.delete(HINT)
    fleet.watch.look()
    fleet.expect("a", 2)


def test_a_store_that_is_away_is_the_callers_to_bear(fleet: Fleet) -> None:
    fleet.store.down = True
    with pytest.raises(StoreUnreachableError):
        fleet.watch.look()
    fleet.promote("a", winner=1)
    fleet.store.down = False
    fleet.watch.look()
    fleet.expect("a", 2)
