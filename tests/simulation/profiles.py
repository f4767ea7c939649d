"""Scripts from seeds: what is likely in a history, by what it is to try out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.simulation.script import OTHER_CONTRACT, VERSIONS, Act, Script, Step
from tests.simulation.store import Fault, Place, Trouble


@dataclass(slots=True)
class _Profile:
    """What is likely in a history: weights of acts, and of troubles of consumers and of operators."""

    acts: dict[Act, int]
    consumer_troubles: tuple[tuple[Fault, Place], ...] = ()
    operator_troubles: tuple[tuple[Fault, Place], ...] = ()
    gap: tuple[float, ...] = (0.5, 4.0, 15.0, 40.0)
    poll: float = 30.0
    jitter: tuple[float, ...] = (0.0,)
    signed: bool = False
    hosts: tuple[tuple[str, ...], ...] = (("a",), ("a", "b"))
    skews: tuple[float, ...] = (0.0,)
    troubled: float = 0.35
    steps: tuple[int, int] = (5, 10)
    late: tuple[float, ...] = (0.0,)
    allowed: float = 0.3
    waits: float = 0.3
    first: tuple[Step, ...] = ()
    twice: bool = False
    """Whether two collectors begin at nearly the same time."""
    versions: Sequence[int] = field(default_factory=lambda: range(1, VERSIONS + 1))


_PODS = "scoring-of-handwritten-digits-production-7c9d8f6b5-"
"""The beginning of the names of one deployment's pods, longer than what heartbeats take of a host's name."""

_STORE = (
    (Fault.LOST_REQUEST, Place.ANY),
    (Fault.LOST_ANSWER, Place.WRITE),
    (Fault.LOST_ANSWER, Place.ANY),
    (Fault.DENIED, Place.ANY),
    (Fault.LOST_REQUEST, Place.ENTRY),
)
_MISSING = (
    (Fault.MISSING, Place.MANIFEST),
    (Fault.MISSING, Place.BLOB),
    (Fault.MISSING, Place.ENTRY),
)
_LOCAL = (
    (Fault.NO_FILES, Place.LOAD),
    (Fault.NO_MEMORY, Place.LOAD),
    (Fault.NO_MEMORY, Place.RUN),
    (Fault.SIGKILL, Place.JUDGE),
)
_TIMES = ((Fault.SLOW, Place.LOAD), (Fault.SLOW, Place.ANY), (Fault.SUSPEND, Place.ANY))
_DEATHS = ((Fault.KILL, Place.ANY), (Fault.KILL_AFTER, Place.ANY), (Fault.KILL, Place.WRITE))

_EVERY_LOAD_SLOW = tuple(Trouble(Fault.SLOW, Place.LOAD, number, 40.0) for number in range(12))

_CHANGES = {Act.PROMOTE: 6, Act.ROLLBACK: 3, Act.HOLD: 1, Act.RELEASE: 1, Act.AUTOMATIC: 2}
_LIVES = {Act.START: 2, Act.KILL: 1, Act.STOP: 1}
_ONE_CONTRACT = range(1, VERSIONS - OTHER_CONTRACT + 1)

_PROFILES: tuple[_Profile, ...] = (
    _Profile(  # faults of the moment
        {**_CHANGES, **_LIVES, Act.TROUBLE: 8, Act.SUSPEND: 1},
        (*_STORE, *_MISSING, *_LOCAL * 2, *_TIMES, *_DEATHS),
        (*_STORE, *_MISSING, *_DEATHS),
        versions=_ONE_CONTRACT,
    ),
    _Profile(  # contracts, and files that are damaged
        {Act.PROMOTE: 10, Act.START: 7, Act.ROLLBACK: 1, Act.DAMAGE: 1, Act.MEND: 1, Act.ROLLBACK_TO: 1},
        operator_troubles=_MISSING,
        allowed=0.5,
        troubled=0.15,
        versions=(1, 5, 6, 6),
        first=(Step(0.2, Act.DAMAGE, version=5), Step(20.0, Act.PROMOTE, version=5, allow=True)),
    ),
    _Profile(  # contracts, and versions that fail
        {**_CHANGES, Act.PROMOTE: 10, Act.REGRESS: 6, Act.CANARY: 1},
        allowed=0.5,
        versions=(1, 2, 5, 6),
        gap=(4.0, 15.0, 25.0, 40.0),
    ),
    _Profile(  # ways back
        {
            **_CHANGES,
            Act.ROLLBACK: 4,
            Act.ROLLBACK_TO: 3,
            Act.CANARY: 6,
            Act.REGRESS: 8,
            Act.DAMAGE: 1,
            Act.START: 1,
        },
        versions=_ONE_CONTRACT,
    ),
    _Profile(  # backups
        {**_CHANGES, **_LIVES, Act.BACKUP: 3, Act.RESTORE: 4, Act.SUSPEND: 1, Act.TROUBLE: 2},
        (*_STORE, *_TIMES, (Fault.LOST_REQUEST, Place.HEARTBEAT)),
        _STORE,
        versions=_ONE_CONTRACT,
        waits=0.7,
        first=(Step(0.3, Act.BACKUP),),
    ),
    _Profile(  # machines and their clocks
        {**_CHANGES, Act.START: 2, Act.KILL: 6, Act.STOP: 1, Act.TROUBLE: 1, Act.SUSPEND: 1},
        (*_STORE, (Fault.LOST_REQUEST, Place.HEARTBEAT)),
        _STORE,
        hosts=(("a",), ("a", "b"), (f"{_PODS}x2x4z", f"{_PODS}9q8rt")),
        skews=(0.0, -300.0, 900.0, 900.0),
        gap=(4.0, 15.0, 40.0, 100.0),
        late=(0.0, 50.0),
        versions=_ONE_CONTRACT,
        waits=0.7,
    ),
    _Profile(  # signatures
        {**_CHANGES, Act.START: 1, Act.FORGE: 5, Act.UNFORGE: 5, Act.TROUBLE: 1, Act.CANARY: 1},
        _STORE,
        signed=True,
        gap=(15.0, 25.0, 40.0),
        troubled=0.1,
        steps=(5, 9),
        versions=_ONE_CONTRACT,
    ),
    _Profile(  # far behind
        {**_CHANGES, Act.MANY: 4, Act.TROUBLE: 6, Act.SUSPEND: 2, Act.KILL: 1, Act.START: 1},
        ((Fault.LOST_REQUEST, Place.ENTRY), (Fault.LOST_ANSWER, Place.ENTRY)),
        steps=(5, 9),
        hosts=(("a",), ("a", "b")),
        versions=_ONE_CONTRACT,
    ),
    _Profile(  # slow loads
        {Act.PROMOTE: 8, Act.ROLLBACK: 7, Act.AUTOMATIC: 2, Act.RELEASE: 3, Act.HOLD: 1},
        jitter=(0.0, 0.0, 90.0),
        gap=(4.0, 15.0, 40.0),
        versions=_ONE_CONTRACT,
        first=(Step(0.2, Act.TROUBLE, troubles=_EVERY_LOAD_SLOW),),
    ),
    _Profile(  # jitter
        {**_CHANGES, Act.ROLLBACK: 8, Act.HOLD: 4, Act.RELEASE: 4},
        jitter=(200.0,),
        gap=(0.5, 4.0, 15.0, 100.0),
        versions=_ONE_CONTRACT,
    ),
    _Profile(  # garbage
        {Act.COLLECT: 14, Act.PUBLISH: 3, Act.PROMOTE: 3, Act.ROLLBACK: 1, Act.ROLLBACK_TO: 1, Act.CANARY: 1},
        (),
        ((Fault.SUSPEND, Place.GARBAGE),) * 5 + ((Fault.SUSPEND, Place.ANY), (Fault.KILL, Place.GARBAGE)),
        gap=(1.0, 35.0, 700.0, 700.0),
        poll=300.0,
        hosts=(("a",), ("a", "b")),
        troubled=0.7,
        steps=(5, 9),
        twice=True,
    ),
    _Profile(  # everything
        dict.fromkeys(Act, 1) | _CHANGES | {Act.COLLECT: 3},
        (*_STORE, *_MISSING, *_LOCAL, *_TIMES, *_DEATHS),
        (*_STORE, *_MISSING, *_DEATHS, (Fault.SUSPEND, Place.ANY)),
        jitter=(0.0, 60.0),
        skews=(0.0, 0.0, 120.0),
        gap=(0.5, 4.0, 15.0, 40.0, 650.0),
        poll=60.0,
    ),
)


def script_of(seed: int) -> Script:
    """The script of a seed: the same each time."""
    rng = random.Random(seed)  # noqa: S311 - a history is the same each time
    profile = _PROFILES[seed % len(_PROFILES)]
    hosts = rng.choice(profile.hosts)
    steps = [Step(0.0, Act.PROMOTE, version=rng.choice(range(1, 5)))]
    late = rng.choice(profile.late)
    steps.extend(
        Step(0.1 + late * number, Act.START, who=number, skew=rng.choice(profile.skews))
        for number in range(len(hosts))
    )
    steps.extend(profile.first)
    acts, weights = list(profile.acts), list(profile.acts.values())
    now = 0.5
    for _ in range(rng.randint(*profile.steps)):
        now += rng.choice(profile.gap)
        steps.append(_step(rng, profile, now, rng.choices(acts, weights)[0], len(hosts)))
        if profile.twice and steps[-1].act is Act.COLLECT:
            steps.append(_step(rng, profile, now + 1, Act.COLLECT, len(hosts)))
    steps.sort(key=lambda step: step.at)
    return Script(tuple(steps), profile.poll, rng.choice(profile.jitter), profile.signed, hosts)


def _step(rng: random.Random, profile: _Profile, now: float, act: Act, consumers: int) -> Step:
    who = rng.randrange(consumers)
    step = Step(now, act, who=who, version=rng.choice(profile.versions))
    match act:
        case Act.PROMOTE | Act.AUTOMATIC | Act.CANARY | Act.ROLLBACK_TO | Act.ROLLBACK:
            step = replace(
                step,
                allow=rng.random() < profile.allowed,
                force=rng.random() < 0.6,
                wait=profile.poll * rng.choice((3, 8)) if rng.random() < profile.waits else 0.0,
                troubles=_some(rng, profile, profile.operator_troubles, 12),
            )
        case Act.COLLECT | Act.PUBLISH | Act.HOLD | Act.RELEASE:
            step = replace(step, troubles=_some(rng, profile, profile.operator_troubles, 30))
        case Act.MANY:
            step = replace(step, count=rng.choice((20, 40)))
        case Act.START:
            step = replace(step, skew=rng.choice(profile.skews))
        case Act.SUSPEND:
            step = replace(step, seconds=rng.choice((15.0, 45.0, 200.0)))
        case Act.TROUBLE:
            step = replace(step, troubles=_consumer_troubles(rng, profile))
    return step


def _some(
    rng: random.Random, profile: _Profile, faults: Sequence[tuple[Fault, Place]], most: int
) -> tuple[Trouble, ...]:
    if not faults or rng.random() >= profile.troubled:
        return ()
    return tuple(_trouble(rng, *rng.choice(faults), most) for _ in range(rng.choice((1, 1, 2))))


def _consumer_troubles(rng: random.Random, profile: _Profile) -> tuple[Trouble, ...]:
    fault, place = rng.choice(profile.consumer_troubles)
    if Act.MANY in profile.acts:  # far behind: a read fails now and then, for as long as it takes
        every = rng.choice((30, 60))
        return tuple(Trouble(fault, place, every * number) for number in range(1, 13))
    return (_trouble(rng, fault, place, 2 if place is not Place.ANY else 12),)


def _trouble(rng: random.Random, fault: Fault, place: Place, most: int) -> Trouble:
    seconds = rng.choice((5.0, 40.0, 40.0, 700.0)) if fault in {Fault.SUSPEND, Fault.SLOW} else 0.0
    if place in {Place.LOAD, Place.RUN, Place.BLOB}:
        seconds = min(seconds, 150.0)
    return Trouble(fault, place, rng.randrange(most), seconds)
