"""Two hundred thousand histories, in pieces that can be run one by one: `-k "piece-7-"`."""

from __future__ import annotations

import pytest

from tests.simulation.play import failures
from tests.simulation.substitutes import simulated
from tests.support.sizes import sized

PIECE = sized(500, 5_000)
PIECES = 40
FIRST = 10_000
"""Seeds below are those of the unit tests."""


@pytest.mark.parametrize("piece", range(PIECES), ids=lambda piece: f"piece-{piece}-")
def test_no_history_breaks_an_invariant(piece: int) -> None:
    first = FIRST + piece * PIECE
    with simulated():
        failed = list(failures(range(first, first + PIECE)))
    told = "\n\n".join(str(failure) for failure in failed[:10])
    assert not failed, f"{len(failed)} of {PIECE} histories, seeds {[each.seed for each in failed]}:\n{told}"
