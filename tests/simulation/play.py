"""Plays histories: from a seed or a script to the invariants that it breaks."""

from __future__ import annotations

import gc
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.invariants import Breach, Invariant
from tests.simulation.profiles import script_of
from tests.simulation.script import Script, shrink
from tests.simulation.substitutes import Here
from tests.simulation.world import World

CALM = 35.0
"""Seconds, beside two polls and the jitter, within which everyone has come to the head, and a collector that
waits for another to be gone has gone on."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A history that breaks invariants."""

    seed: int
    script: Script
    breaches: tuple[Breach, ...]

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}: {self.script}", *(f"!{breach}" for breach in self.breaches)])

    def breaks(self, invariant: Invariant) -> bool:
        """Whether it breaks this one."""
        return any(breach.invariant is invariant for breach in self.breaches)

    def told(self, invariant: Invariant) -> str:
        """The script, and how it breaks one invariant."""
        breaches = tuple(breach for breach in self.breaches if breach.invariant is invariant)
        return str(Failure(self.seed, self.script, breaches))


def play(script: Script) -> list[Breach]:
    """Let a history happen, and return what it breaks; to be called within `simulated()`."""
    return happened(script).judge.breaches


def happened(script: Script) -> World:
    """The world after a history, once all was calm; to be called within `simulated()`."""
    gc.disable()  # what a history leaves behind goes at its end
    folder = Path(tempfile.mkdtemp(dir=_memory(), prefix="simulation-"))
    world = World(script, folder)
    Here.begin(world.kernel, world.facts)
    try:
        world.prepare()
        world.kernel.run_until(script.end)
        world.calm()
        world.kernel.run_until(script.end + CALM + 2 * script.poll + script.jitter)
        world.judge.ended()
    finally:
        world.kernel.end()
        shutil.rmtree(folder, ignore_errors=True)
        gc.enable()
    return world


def failures(seeds: Iterable[int]) -> Iterator[Failure]:
    """The histories of these seeds that break something."""
    for seed in seeds:
        script = script_of(seed)
        breaches = play(script)
        if breaches:
            yield Failure(seed, script, tuple(breaches))


def shortest(failure: Failure, invariant: Invariant) -> Failure:
    """The same failure of one invariant, in the same words, with nothing in it that could be left out."""
    kind = next(_kind(breach) for breach in failure.breaches if breach.invariant is invariant)

    def broken(script: Script) -> list[Breach]:
        return [each for each in play(script) if each.invariant is invariant and _kind(each) == kind]

    script = shrink(failure.script, lambda smaller: bool(broken(smaller)))
    return Failure(failure.seed, script, tuple(broken(script)))


def _kind(breach: Breach) -> str:
    return re.sub(r"[0-9.]+", "#", breach.what)


def _memory() -> Path | None:
    folder = Path("/dev/shm")  # noqa: S108 - files that are as short-lived as a history
    return folder if folder.is_dir() else None
