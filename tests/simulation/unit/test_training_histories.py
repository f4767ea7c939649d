"""Histories of a trainer on a simulated Kafka: what must hold of all of them (docs/simulation.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.training.play import Played, play
from tests.simulation.training.script import History
from tests.simulation.training.shrinking import shrink

KEPT = sorted((Path(__file__).parents[1] / "training" / "kept").glob("*.txt"))
BLOCK = 50


def require_sound(histories: list[History]) -> None:
    """Fail with a short script of the first history that fails."""
    failed = [played for played in map(play, histories) if played.findings]
    if failed:
        seeds = ", ".join(str(played.history.seed) for played in failed)
        pytest.fail(f"seeds {seeds}\n{failed[0]}\n\nshort:\n{shrink(failed[0])}", pytrace=False)


@pytest.mark.parametrize("begin", range(0, 500, BLOCK))
def test_histories(begin: int) -> None:
    require_sound([History.of_seed(seed) for seed in range(begin, begin + BLOCK)])


def test_histories_with_the_real_learner_and_export() -> None:
    require_sound([History.of_seed(seed, real=True) for seed in range(4)])


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_history_that_failed_once(path: Path) -> None:
    played = play(History.parse(path.read_text()))
    assert not played.findings, played


def test_a_seed_gives_the_same_history_and_the_same_events() -> None:
    first, second = (play(History.of_seed(seed)) for seed in (23, 23))
    assert first.world.events == second.world.events
    assert [str(ending) for ending in first.endings] == [str(ending) for ending in second.endings]


def test_a_history_can_be_written_down_and_read_again() -> None:
    history = History.of_seed(24)
    assert History.parse(str(Played(history, play(history).world))) == history
