"""Scripts: what happens in a history and when, as plain data that can be cut down to what fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.simulation.store import Trouble

VERSIONS = 6
"""Versions there are before a history begins; the last `OTHER_CONTRACT` have another contract."""
OTHER_CONTRACT = 2


class Act(StrEnum):
    """What someone does."""

    PROMOTE = "promote"
    AUTOMATIC = "promote by a program"
    CANARY = "promote a canary"
    ROLLBACK = "rollback"
    ROLLBACK_TO = "rollback --to"
    HOLD = "hold"
    RELEASE = "release"
    PUBLISH = "publish"
    MANY = "many promotions by a program"
    COLLECT = "gc"
    START = "start a consumer"
    KILL = "kill a consumer"
    STOP = "stop a consumer"
    REGRESS = "what a consumer serves fails from now on"
    TROUBLE = "trouble for a consumer"
    SUSPEND = "suspend a consumer"
    DAMAGE = "damage the file of a version"
    MEND = "mend the file of a version"
    FORGE = "put an unsigned entry"
    UNFORGE = "take the unsigned entry out"
    BACKUP = "make a backup"
    RESTORE = "restore the backup"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens.

    Args:
        at: when, in seconds.
        act: what.
        who: which consumer, where one is meant.
        version: which version, where one is meant.
        allow: with `--allow-contract-change`.
        force: with `--force`.
        wait: with `--wait`, for so many seconds; 0 for no wait.
        count: how many, for many promotions.
        skew: how far the clock of whoever does it is ahead.
        troubles: what goes wrong with whoever does it, or with the consumer.
    """

    at: float
    act: Act
    who: int = 0
    version: int = 0
    allow: bool = False
    force: bool = False
    wait: float = 0.0
    count: int = 0
    skew: float = 0.0
    seconds: float = 0.0
    troubles: tuple[Trouble, ...] = ()

    def __str__(self) -> str:
        given = [
            f"{item.name}={getattr(self, item.name)}"
            for item in dataclasses.fields(self)[2:-1]
            if getattr(self, item.name)
        ]
        troubles = [f"; {each.fault} ({each.place} {each.skip}{_seconds(each)})" for each in self.troubles]
        return f"{self.at:8.1f} s  {self.act} {' '.join(given)}{''.join(troubles)}".rstrip()


def _seconds(trouble: Trouble) -> str:
    return f", {trouble.seconds:g} s" if trouble.seconds else ""


@dataclass(frozen=True, slots=True)
class Script:
    """A whole history.

    Args:
        steps: in the order of their times.
        poll: seconds between two polls; heartbeats are half as frequent.
        jitter: the longest wait before a new generation is taken up.
        signed: whether entries are signed, and consumers remember the highest generation.
        hosts: the machines of the consumers.
    """

    steps: tuple[Step, ...]
    poll: float = 10.0
    jitter: float = 0.0
    signed: bool = False
    hosts: tuple[str, ...] = ("a", "b")

    @property
    def beat(self) -> float:
        """Seconds between two heartbeats."""
        return 2 * self.poll

    @property
    def end(self) -> float:
        """When the last step is made."""
        return max((step.at for step in self.steps), default=0.0)

    def __str__(self) -> str:
        signed = ", signed" if self.signed else ""
        return "\n".join(
            [
                f"poll {self.poll:g} s, jitter {self.jitter:g} s{signed}, hosts {self.hosts}",
                *map(str, self.steps),
            ]
        )


# --- cutting down -------------------------------------------------------------------------------------


def shrink(script: Script, fails: Callable[[Script], bool]) -> Script:
    """A script from which nothing can be left out so that it still fails."""
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(script):
            if fails(smaller):
                script, changed = smaller, True
                break
    return script


def _smaller(script: Script) -> Iterable[Script]:
    steps = script.steps
    for size in (4, 2, 1):
        for start in range(0, len(steps), size):
            yield replace(script, steps=steps[:start] + steps[start + size :])
    if len(script.hosts) > 1:
        last = len(script.hosts) - 1
        yield replace(
            script, hosts=script.hosts[:-1], steps=tuple(step for step in steps if step.who != last)
        )
    if script.jitter:
        yield replace(script, jitter=0.0)
    for number, step in enumerate(steps):
        for simpler in _simpler(step):
            yield replace(script, steps=(*steps[:number], simpler, *steps[number + 1 :]))


def _simpler(step: Step) -> Iterable[Step]:
    for skip in range(len(step.troubles)):
        yield replace(step, troubles=step.troubles[:skip] + step.troubles[skip + 1 :])
    if step.wait:
        yield replace(step, wait=0.0)
    if step.allow:
        yield replace(step, allow=False)
    if step.force:
        yield replace(step, force=False)
    if step.skew:
        yield replace(step, skew=0.0)
