"""Invariants that hold everywhere are broken once the product is spoilt: the simulation would see it."""

from __future__ import annotations

import pytest

from ferryline.registry import collector, references
from ferryline.registry.errors import ConflictError
from ferryline.registry.log import AppendLog
from tests.simulation.invariants import Invariant
from tests.simulation.play import play
from tests.simulation.script import Act, Script, Step
from tests.simulation.store import Fault, Place, Trouble
from tests.simulation.substitutes import simulated

TWO_WRITERS = Script(
    (
        Step(0.0, Act.PROMOTE, version=1),
        Step(1.0, Act.PROMOTE, version=2, troubles=(Trouble(Fault.SUSPEND, Place.WRITE, 0, 5.0),)),
        Step(2.0, Act.PROMOTE, version=3),
    ),
    hosts=("a",),
)
LEFT_BEHIND = Script(
    (
        Step(0.0, Act.PROMOTE, version=1),
        Step(0.1, Act.START),
        Step(700.0, Act.SUSPEND, seconds=20_000.0),
        Step(701.0, Act.PROMOTE, version=2),
        Step(702.0, Act.PROMOTE, version=3),
        Step(703.0, Act.PROMOTE, version=4),
        Step(704.0, Act.COLLECT),
        Step(1500.0, Act.COLLECT),
    ),
    poll=300.0,
    hosts=("a",),
)


def broken(script: Script) -> set[Invariant]:
    with simulated():
        return {breach.invariant for breach in play(script)}


def test_a_conflict_that_is_told_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    append = AppendLog.append

    def careless(self: AppendLog, number: int, data: bytes) -> None:
        try:
            append(self, number, data)
        except ConflictError:
            return

    assert Invariant.ACKNOWLEDGED not in broken(TWO_WRITERS)
    monkeypatch.setattr(AppendLog, "append", careless)
    assert Invariant.ACKNOWLEDGED in broken(TWO_WRITERS)


def test_a_collector_that_does_not_ask_the_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Invariant.IN_USE not in broken(LEFT_BEHIND)
    monkeypatch.setattr(references, "of_consumer", lambda _heartbeat: iter(()))
    assert Invariant.IN_USE in broken(LEFT_BEHIND)


def test_a_collector_that_does_not_look_at_the_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(
        (Step(0.0, Act.PROMOTE, version=1), Step(1.0, Act.COLLECT), Step(800.0, Act.COLLECT)), hosts=("a",)
    )
    assert Invariant.IN_USE not in broken(script)
    monkeypatch.setattr(references, "of_channel", lambda _head, _others: iter(()))
    assert Invariant.IN_USE in broken(script)


def test_a_collector_that_spares_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def promoted_meanwhile(skip: int) -> Script:
        suspended = (Trouble(Fault.SUSPEND, Place.GARBAGE, skip, 4.0),)
        steps = (
            Step(0.0, Act.PROMOTE, version=1),
            Step(1.0, Act.COLLECT),
            Step(800.0, Act.COLLECT, troubles=suspended),
            *(Step(801.0, Act.PROMOTE, version=version, allow=True) for version in (2, 3, 4)),
        )
        return Script(steps, hosts=("a",))

    scripts = [promoted_meanwhile(skip) for skip in range(4, 16)]
    assert all(Invariant.IN_USE not in broken(script) for script in scripts)
    monkeypatch.setattr(collector.Collector, "_read_mark", _any_mark)
    assert any(Invariant.IN_USE in broken(script) for script in scripts)


def _any_mark(_self: object, digest: str) -> bytes:
    return digest.encode()
