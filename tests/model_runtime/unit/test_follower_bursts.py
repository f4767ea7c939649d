"""Many generations at once, and fleets that must not load all at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ferryline.model_runtime.follower import Follower, FollowerSettings
from ferryline.registry import Registry
from ferryline.registry.documents import ModelFacts
from tests.model_runtime.following import FAST, Setting, Witness
from tests.support.waiting import DEADLINE, wait_for


class SlowDoor:
    """A consumer's demand on a contract that takes its time with the second version."""

    def __init__(self) -> None:
        self.seen = 0
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, _facts: ModelFacts) -> None:
        self.seen += 1
        if self.seen == 2:
            self.reached.set()
            assert self.open.wait(DEADLINE)


def loading_the_second(tmp_path: Path) -> tuple[Setting, SlowDoor, Witness, Follower]:
    """A follower that serves version 1, and holds still while it loads version 2 until the door opens."""
    setting, door, witness = Setting(tmp_path), SlowDoor(), Witness()
    follower = Follower(
        Registry(setting.store), "digits", cache=tmp_path, settings=FAST, observer=witness, accept=door
    )
    setting.registry.promote("digits", setting.publish(0))
    follower.start()
    witness.wait(lambda seen: seen.swaps == [(1, 1)])
    setting.registry.promote("digits", setting.publish(1))
    assert door.reached.wait(DEADLINE)
    return setting, door, witness, follower


def test_what_comes_while_a_version_is_made_ready_costs_one_more_swap(tmp_path: Path) -> None:
    setting, door, witness, follower = loading_the_second(tmp_path)
    for turn in range(20):
        setting.registry.promote("digits", setting.publish(turn % 3))
    door.open.set()
    witness.wait(lambda seen: seen.swaps[-1] == (22, 22))
    assert witness.swaps == [(1, 1), (2, 2), (22, 22)]
    assert door.seen == 3
    follower.stop()


def wait_until_newest_is_seen(setting: Setting) -> None:
    head = setting.registry.channel("digits").require_head()

    def is_seen() -> bool:
        newest = setting.follower.newest
        return newest is not None and newest.generation >= head.generation

    wait_for(is_seen, f"generation {head.generation} to be seen")


def test_a_stop_does_not_wait_for_the_jitter(tmp_path: Path) -> None:
    setting = Setting(tmp_path, FollowerSettings(poll_interval=0.01, swap_jitter=3600))
    setting.registry.promote("digits", setting.publish(0))
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    setting.registry.promote("digits", setting.publish(1))
    wait_until_newest_is_seen(setting)
    assert setting.witness.swaps == [(1, 1)], "the promotion waits"
    setting.follower.stop(DEADLINE)
    assert not setting.follower._thread.is_alive()


def test_a_rollback_does_not_wait_for_the_jitter(tmp_path: Path) -> None:
    setting = Setting(tmp_path, FollowerSettings(poll_interval=0.01, swap_jitter=3600))
    for winner in (0, 1):
        setting.registry.promote("digits", setting.publish(winner))
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(2, 2)])
    setting.registry.rollback("digits")
    setting.witness.wait(lambda witness: witness.swaps == [(2, 2), (3, 1)])
    setting.follower.stop()


def waiting_for_its_jitter(tmp_path: Path, *, poll_interval: float) -> Setting:
    """A follower that serves version 1, knows of version 2 and waits an hour before it takes it up."""
    setting = Setting(tmp_path, FollowerSettings(poll_interval=poll_interval, swap_jitter=3600))
    setting.registry.promote("digits", setting.publish(0))
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    setting.registry.promote("digits", setting.publish(1))
    setting.follower.wake()
    wait_until_newest_is_seen(setting)
    return setting


def test_a_rollback_does_not_wait_for_the_jitter_of_what_it_takes_back(tmp_path: Path) -> None:
    setting = waiting_for_its_jitter(tmp_path, poll_interval=0.01)
    setting.registry.rollback("digits")
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1), (3, 1)])
    setting.follower.stop()


def test_a_watched_follower_hears_of_a_rollback_while_it_waits(tmp_path: Path) -> None:
    setting = waiting_for_its_jitter(tmp_path, poll_interval=3600)
    setting.registry.rollback("digits")
    setting.follower.wake()
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1), (3, 1)])
    setting.follower.stop()


def test_a_fall_back_does_not_wait_for_the_jitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = [0.0]
    monkeypatch.setattr("ferryline.model_runtime.follower.driver.random.random", lambda: chance[0])
    setting = Setting(tmp_path, FollowerSettings(poll_interval=0.01, swap_jitter=3600))
    setting.registry.promote("digits", setting.publish(0))
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    setting.registry.promote("digits", setting.publish(1))
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1), (2, 2)])
    chance[0] = 0.5
    setting.registry.promote("digits", setting.publish(2))
    wait_until_newest_is_seen(setting)
    setting.follower.fall_back(2, "it does worse")
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1), (2, 2), (1, 1)])
    setting.follower.stop()


def test_nothing_falls_back_to_what_was_rolled_back(tmp_path: Path) -> None:
    setting = Setting(tmp_path, FollowerSettings(poll_interval=0.01))
    for winner in (0, 1):
        setting.registry.promote("digits", setting.publish(winner))
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(2, 2)])
    setting.registry.rollback("digits")
    setting.registry.hold("digits")
    setting.witness.wait(lambda _: setting.follower.handled == 4)
    assert setting.follower.previous is None
    setting.registry.promote("digits", 2, force=True)
    setting.witness.wait(lambda witness: witness.swaps[-1] == (5, 2))
    assert setting.follower.previous is not None
    setting.registry.promote("digits", 1)
    setting.witness.wait(lambda witness: witness.swaps[-1] == (6, 1))
    assert setting.follower.previous is not None
    assert setting.follower.previous.version == 2  # somebody chose it again
    setting.follower.stop()


@pytest.mark.parametrize("over_it", ["hold", "release"])
def test_a_rollback_with_something_over_it_does_not_wait_for_the_jitter(tmp_path: Path, over_it: str) -> None:
    setting = Setting(tmp_path, FollowerSettings(poll_interval=0.01, swap_jitter=3600))
    for winner in (0, 1):
        setting.registry.promote("digits", setting.publish(winner))
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(2, 2)])
    setting.store.down = True
    setting.registry.rollback("digits")
    getattr(setting.registry, over_it)("digits")
    setting.store.down = False
    setting.witness.wait(lambda witness: witness.swaps == [(2, 2), (4, 1)])
    setting.follower.stop()


@pytest.mark.parametrize("over_it", ["hold", "release", None])
def test_what_is_rolled_back_while_it_loads_never_serves(tmp_path: Path, over_it: str | None) -> None:
    setting, door, witness, follower = loading_the_second(tmp_path)
    last = setting.registry.rollback("digits")
    if over_it:
        last = getattr(setting.registry, over_it)("digits")
    door.open.set()
    witness.wait(lambda seen: seen.swaps[-1][0] == last.generation)
    assert witness.swaps == [(1, 1), (last.generation, 1)]
    follower.stop()


def test_a_newer_promotion_does_not_keep_what_is_ready_from_serving(tmp_path: Path) -> None:
    setting, door, witness, follower = loading_the_second(tmp_path)
    setting.registry.promote("digits", setting.publish(2))
    door.open.set()
    witness.wait(lambda seen: seen.swaps[-1] == (3, 3))
    assert witness.swaps == [(1, 1), (2, 2), (3, 3)]
    follower.stop()
