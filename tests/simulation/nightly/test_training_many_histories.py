"""Two hundred thousand histories of a trainer, and two thousand with the real learner and export."""

from __future__ import annotations

import pytest

from tests.simulation.training.play import play
from tests.simulation.training.script import History
from tests.simulation.training.shrinking import shrink
from tests.support.sizes import sized

BLOCK = 1000
FIRST = 1000  # the unit tests play those before
MANY = sized(2_000, 200_000)
REAL = sized(50, 2_000)


def require_sound(begin: int, end: int, *, real: bool = False) -> None:
    for seed in range(begin, end):
        played = play(History.of_seed(seed, real=real))
        if played.findings:
            pytest.fail(f"{played}\n\nshort:\n{shrink(played)}", pytrace=False)


@pytest.mark.parametrize("begin", range(FIRST, FIRST + MANY, BLOCK))
def test_histories(begin: int) -> None:
    require_sound(begin, begin + BLOCK)


@pytest.mark.parametrize("begin", range(FIRST, FIRST + REAL, 50))
def test_histories_with_the_real_learner_and_export(begin: int) -> None:
    require_sound(begin, begin + 50, real=True)
