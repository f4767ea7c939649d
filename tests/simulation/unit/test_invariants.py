"""Every invariant in hundreds of histories, and in each that failed once: see docs/simulation.md."""

from __future__ import annotations

import pytest

from tests.simulation.invariants import Invariant
from tests.simulation.kept import Kept, kept
from tests.simulation.play import Failure, failures, play, shortest
from tests.simulation.substitutes import simulated
from tests.support.sizes import sized

HISTORIES = sized(500, 5_000)


@pytest.fixture(scope="module")
def failed() -> list[Failure]:
    with simulated():
        return list(failures(range(HISTORIES)))


@pytest.mark.parametrize("invariant", list(Invariant), ids=lambda each: each.name.lower())
def test_holds_in_every_history(invariant: Invariant, failed: list[Failure]) -> None:
    broken = [failure for failure in failed if failure.breaks(invariant)]
    if broken:
        with simulated():
            pytest.fail(f"{len(broken)} of {HISTORIES} histories:\n{shortest(broken[0], invariant)}")


@pytest.mark.parametrize("one", kept(), ids=lambda one: f"{one.fault}-{one.invariant.name.lower()}")
def test_holds_in_what_failed_once(one: Kept) -> None:
    with simulated():
        breaches = [breach for breach in play(one.script) if breach.invariant is one.invariant]
    assert not breaches, f"{one.script}\n" + "\n".join(map(str, breaches))
