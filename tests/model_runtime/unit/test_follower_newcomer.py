"""A follower that starts while the head of its channel is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.model_runtime.follower import rules
from tests.model_runtime.following import Setting, blob_key, flip_a_bit, remove_blob

Damage = Callable[[Setting, int], None]


def started_after(folder: Path, versions: int, damaged: dict[int, Damage]) -> Setting:
    setting = Setting(folder)
    for winner in range(versions):
        setting.registry.promote("digits", setting.publish(winner))
    for version, damage in damaged.items():
        damage(setting, version)
    setting.follower.start()
    return setting


def test_it_serves_what_came_before_and_says_what_it_refused(tmp_path: Path) -> None:
    setting = started_after(tmp_path, 2, {2: flip_a_bit})
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    assert setting.label() == 0
    report = setting.follower.report()
    assert (report.generation, report.refused_generation) == (1, 2)
    newer = setting.registry.promote("digits", setting.publish(2))
    setting.witness.wait(lambda witness: witness.swaps[-1] == (newer.generation, 3))
    assert setting.follower.report().refused_generation is None
    setting.follower.stop()


def test_it_serves_what_came_before_while_a_file_is_missing(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    for winner in (0, 1):
        setting.registry.promote("digits", setting.publish(winner))
    file = setting.memory.get(blob_key(setting, 2)).data
    remove_blob(setting, 2)
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    assert setting.label() == 0
    setting.witness.wait(lambda witness: len(witness.failures) > rules.TRIES_BEFORE_LOOKING_BACK)
    assert setting.witness.refusals == []
    # bringing it back is enough
    setting.memory.put(blob_key(setting, 2), file)
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1), (2, 2)])
    setting.follower.stop()


@pytest.mark.parametrize("nearer", [flip_a_bit, remove_blob])
def test_it_goes_back_beyond_what_is_missing_or_damaged(tmp_path: Path, nearer: Damage) -> None:
    setting = started_after(tmp_path, 3, {2: nearer, 3: remove_blob})
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    setting.follower.stop()


def test_a_missing_file_behind_what_is_refused_is_tried_again(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    for winner in (0, 1):
        setting.registry.promote("digits", setting.publish(winner))
    file = setting.memory.get(blob_key(setting, 1)).data
    remove_blob(setting, 1)
    flip_a_bit(setting, 2)
    setting.follower.start()
    setting.witness.wait(lambda witness: len(witness.failures) > 5)
    setting.memory.put(blob_key(setting, 1), file)
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    setting.follower.stop()


def test_it_goes_back_as_far_as_it_must_and_refuses_each_version_once(tmp_path: Path) -> None:
    setting = started_after(tmp_path, 3, {2: flip_a_bit, 3: flip_a_bit})
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    assert [refusal.target.version for refusal in setting.witness.refusals] == [3, 2]
    records = setting.registry.refusals("digits").newest()
    assert {(record.version, record.generation, record.gate) for record in records} == {
        (3, 3, "digest"),
        (2, 2, "digest"),
    }
    setting.follower.stop()


def test_where_nothing_is_good_it_waits_for_a_newer_generation(tmp_path: Path) -> None:
    setting = started_after(tmp_path, 2, {1: flip_a_bit, 2: flip_a_bit})
    setting.witness.wait(lambda witness: len(witness.refusals) == 2)
    assert setting.follower.wait_until_serving(0.1) is None
    setting.registry.promote("digits", setting.publish(2))
    setting.witness.wait(lambda witness: witness.swaps == [(3, 3)])
    assert len(setting.witness.refusals) == 2
    setting.follower.stop()


def test_a_version_that_was_rolled_back_is_not_gone_back_to(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    for winner in (0, 1):
        setting.registry.promote("digits", setting.publish(winner))
    setting.registry.rollback("digits")
    flip_a_bit(setting, 1)
    setting.follower.start()
    setting.witness.wait(lambda witness: bool(witness.refusals))
    assert setting.follower.wait_until_serving(0.1) is None, "version 2 was taken back by a human"
    setting.follower.stop()


def test_a_store_that_goes_down_while_it_looks_back_is_waited_for(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    for winner in (0, 1):
        setting.registry.promote("digits", setting.publish(winner))
    flip_a_bit(setting, 2)
    setting.witness.refused = lambda _: setattr(setting.store, "down", True)  # type: ignore[method-assign]
    setting.follower.start()
    setting.witness.wait(lambda witness: "no answer" in witness.failures)
    setting.store.down = False
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    setting.follower.stop()


def test_a_canary_that_is_refused_does_not_keep_a_newcomer_from_the_rest(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.registry.promote("digits", setting.publish(0))
    bad = setting.publish(1)
    percents = range(5, 65, 5)
    for percent in percents:
        setting.registry.promote("digits", bad, canary=percent)
    flip_a_bit(setting, bad)
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    newest = 1 + len(percents)
    assert [refusal.target.generation for refusal in setting.witness.refusals] == [newest]
    assert setting.follower.report().refused_generation == newest
    setting.follower.stop()


@pytest.mark.parametrize("canary_is_damaged", [False, True])
def test_going_back_begins_no_canary_again(tmp_path: Path, *, canary_is_damaged: bool) -> None:
    setting = Setting(tmp_path)
    setting.registry.promote("digits", setting.publish(0))
    tried = setting.publish(1)
    setting.registry.promote("digits", tried, canary=50)
    bad = setting.publish(2)
    setting.registry.promote("digits", bad)
    flip_a_bit(setting, bad)
    if canary_is_damaged:
        flip_a_bit(setting, tried)
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(1, 1)])
    served = setting.follower.current
    assert served is not None
    assert served.canary is None
    assert [refusal.target.version for refusal in setting.witness.refusals] == [bad]
    setting.follower.stop()
