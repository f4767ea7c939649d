"""What was allowed stays allowed and what was left stays left, however a follower came to what serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ferryline.model_runtime.follower import FollowerObserver
from tests.model_runtime.following import Setting, flip_a_bit
from tests.support.waiting import wait_for

WIDE = 5


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.follower.stop()


def expect(setting: Setting, generation: int, version: int) -> None:
    setting.witness.wait(lambda seen: bool(seen.swaps) and seen.swaps[-1] == (generation, version))


def test_a_newcomer_that_looked_back_takes_the_allowed_contract_later(setting: Setting) -> None:
    setting.registry.promote("digits", setting.publish(0))
    bad = setting.publish(1, features=WIDE)
    setting.registry.promote("digits", bad, allow_contract_change=True)
    setting.registry.promote("digits", worse := setting.publish(0, features=WIDE))
    flip_a_bit(setting, bad)
    flip_a_bit(setting, worse)
    setting.follower.start()
    expect(setting, 1, 1)
    entry = setting.registry.promote("digits", setting.publish(2, features=WIDE))
    assert not entry.contract_change
    expect(setting, entry.generation, entry.version)
    assert [refusal.gate for refusal in setting.witness.refusals] == ["digest", "digest"]


def fallen_back(setting: Setting) -> None:
    """A follower that left version 2, of another contract, for version 1."""
    setting.follower.start()
    setting.serve(0)
    allowed = setting.registry.promote(
        "digits", setting.publish(1, features=WIDE), allow_contract_change=True
    )
    expect(setting, allowed.generation, 2)
    setting.follower.fall_back(allowed.generation, "it does worse")
    expect(setting, 1, 1)
    setting.witness.wait(lambda seen: bool(seen.refusals))


def test_who_fell_back_takes_the_allowed_contract_later(setting: Setting) -> None:
    fallen_back(setting)
    entry = setting.registry.promote("digits", setting.publish(2, features=WIDE))
    assert not entry.contract_change
    expect(setting, entry.generation, entry.version)
    assert [refusal.gate for refusal in setting.witness.refusals] == ["regression"]


def test_a_canary_and_its_rollback_do_not_revive_what_was_left(setting: Setting) -> None:
    fallen_back(setting)
    setting.registry.promote("digits", setting.publish(2, features=WIDE), canary=10)
    setting.registry.rollback("digits", reason="the canary does worse")
    chosen = setting.registry.promote("digits", 2, force=True)
    expect(setting, chosen.generation, 2)
    assert setting.witness.swaps == [(1, 1), (2, 2), (1, 1), (chosen.generation, 2)]


def test_each_of_a_canary_and_its_rollback_is_passed_over_when_seen_alone(setting: Setting) -> None:
    polls = Polls()
    setting.follower.observe(polls)
    fallen_back(setting)
    canary = setting.registry.promote("digits", setting.publish(2, features=WIDE), canary=10)
    polls.wait_beyond(setting, canary.generation)
    polls.wait_beyond(setting, setting.registry.rollback("digits").generation)
    assert setting.witness.swaps == [(1, 1), (2, 2), (1, 1)]
    assert setting.label() == 0


class Polls(FollowerObserver):
    """Counts the looks at a channel."""

    def __init__(self) -> None:
        self.count = 0

    def polled(self) -> None:
        self.count += 1

    def wait_beyond(self, setting: Setting, generation: int) -> None:
        """The generation was seen, and what it asks for was done."""

        def seen() -> bool:
            newest = setting.follower.newest
            return newest is not None and newest.generation >= generation

        wait_for(seen, f"generation {generation}")
        before = self.count
        wait_for(lambda: self.count > before + 1, "two more polls")
