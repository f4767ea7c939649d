"""Histories: what several promoters and a follower do to one channel, request by request, on a bad store.

A history is plain data, so hypothesis makes it and shrinks it. Each player runs on a thread of its own, and
only one of them at a time: the schedule says whose request comes next, so a history gives the same log
each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache

import orjson
from hypothesis import strategies as st

from ferryline.registry import Registry, keys
from ferryline.registry.documents import ChannelEntry, ModelFacts, TensorSpec
from ferryline.registry.errors import (
    ChannelHeldError,
    ConflictError,
    FerryError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    StoreError,
)
from ferryline.registry.stores import Store
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import (
    Damage,
    DamagedReads,
    DamagedWrites,
    Fault,
    FaultyStore,
    Harm,
    Observed,
    Recorder,
    StaleStore,
    Verb,
)
from tests.registry.log_invariants import Attempt, Outcome, Sighting, log_of, violations

MODEL = "digits"
CHANNEL = "production"
VERSIONS = 3
PREFIX = keys.channel(MODEL, CHANNEL)


class Wish(Enum):
    """What a player wants of the channel."""

    PROMOTE = auto()
    PROMOTE_BY_PROGRAM = auto()
    ROLLBACK = auto()
    HOLD = auto()
    RELEASE = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One change that a player asks for."""

    wish: Wish
    version: int = 1
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Troubles:
    """What is wrong with one player's way to the store, request by request.

    `faults` are those of its put-if-absent, `other_faults` those of every other request: a change has many
    requests and one that matters, which would seldom be hit otherwise.
    """

    faults: tuple[Fault, ...] = ()
    other_faults: tuple[Fault, ...] = ()
    stale: tuple[bool, ...] = ()
    reads: tuple[Harm, ...] = ()
    writes: tuple[Harm, ...] = ()

    def between(self, memory: StaleStore) -> tuple[FaultyStore, FaultyStore]:
        """The store as the player meets it, last, and what else must settle."""
        damaged = DamagedWrites(DamagedReads(memory, list(self.reads)), list(self.writes))
        faulty = FaultyStore(damaged, list(self.faults), only={Verb.PUT_IF_ABSENT})
        return faulty, FaultyStore(faulty, list(self.other_faults), only=set(Verb) - {Verb.PUT_IF_ABSENT})


@dataclass(frozen=True, slots=True)
class Player:
    """A promoter, or a follower where it has no steps: it looks `looks` times for what is new."""

    steps: tuple[Step, ...] = ()
    looks: int = 0
    troubles: Troubles = Troubles()


@dataclass(frozen=True, slots=True)
class History:
    """Who does what, and in which order.

    Args:
        players: they all begin at once.
        schedule: whose request is next, by number among those who still have some; then in turns.
        before: so many generations are written, honestly, before they begin.
        remembered: stale reads show the store as it was after so many of those.
    """

    players: tuple[Player, ...]
    schedule: tuple[int, ...] = ()
    before: int = 0
    remembered: int = 0


@dataclass(slots=True)
class Played:
    """What came of a history."""

    store: MemoryStore
    attempts: list[Attempt] = field(default_factory=list)
    followers: list[list[Sighting]] = field(default_factory=list)

    def violations(self) -> list[str]:
        """Every promise of the log that was broken, and whether it still takes changes."""
        return [
            *violations(log_of(self.store, PREFIX), self.attempts, self.followers),
            *self._standstill(),
        ]

    def _standstill(self) -> Iterator[str]:
        """Whether an honest promotion is still possible, whatever was left behind; it makes one."""
        log = log_of(self.store, PREFIX)
        try:
            entry = Registry(self.store, actor="after").promote(MODEL, 1, CHANNEL, force=True)
        except FerryError as error:
            yield f"the channel takes no change any more: {error}"
        else:
            self.store.delete(f"{PREFIX}{entry.generation:010d}.json")
            if entry.generation != len(log) + 1:
                yield f"the next generation after {len(log)} was {entry.generation}"

    def wrong_successes(self) -> list[str]:
        """What was acknowledged and is not there as it was acknowledged."""
        found = violations(log_of(self.store, PREFIX), self.attempts, self.followers)
        return [fault for fault in found if "acknowledged" in fault]

    def outcomes(self) -> list[Outcome]:
        """What the players' changes came to, without those from before."""
        return [attempt.outcome for attempt in self.attempts]


def facts() -> ModelFacts:
    """A contract; all versions of a history share it."""
    return ModelFacts(
        opset=17,
        ir_version=8,
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
    )


def play(history: History) -> Played:
    """Let `history` happen."""
    played = Played(_published())
    honest = Registry(played.store, actor="before")
    pasts: list[StaleStore] = []
    for generation in range(history.before + 1):
        if generation:
            entry = honest.promote(MODEL, generation % VERSIONS + 1, CHANNEL)
            played.attempts.append(Attempt(Outcome.DONE, frozenset({entry.op_id}), entry))
        if generation == min(history.remembered, history.before):
            pasts = [_with_past(played.store, player) for player in history.players]
    seats = [_Seat(played, player, past) for player, past in zip(history.players, pasts, strict=True)]
    _take_turns([seat.play for seat in seats], history.schedule)
    for seat in seats:
        for faulty in seat.faulty:
            faulty.settle()
    return played


def _published() -> MemoryStore:
    store = MemoryStore(MODEL)
    for key, data in _published_objects():
        store.put(key, data)
    return store


@cache
def _published_objects() -> tuple[tuple[str, bytes], ...]:
    store = MemoryStore(MODEL)
    registry = Registry(store, actor="before")
    for number in range(VERSIONS):
        registry.publish(MODEL, b"model %d" % number, facts())
    return tuple((listed.key, store.get(listed.key).data) for listed in store.list(""))


def _with_past(store: MemoryStore, player: Player) -> StaleStore:
    stale = StaleStore(store, list(player.troubles.stale))
    stale.remember()
    return stale


class _Seat:
    """One player at work."""

    def __init__(self, played: Played, player: Player, past: StaleStore) -> None:
        self._played = played
        self._player = player
        self.faulty = player.troubles.between(past)

    def play(self, turn: Callable[[], None]) -> None:
        recorder = Recorder(_Turns(self.faulty[-1], turn))
        if self._player.looks:
            self._played.followers.append(self._follow(recorder))
        for step in self._player.steps:
            self._played.attempts.append(_attempt(recorder, step))

    def _follow(self, store: Store) -> list[Sighting]:
        channel = Registry(store, actor="follower").channel(MODEL, CHANNEL)
        seen: list[Sighting] = []
        handled: ChannelEntry | None = None
        for _ in range(self._player.looks):
            try:
                head = channel.head() if handled is None else None
                newer = channel.newer_than(handled) if handled else [head] if head else []
            except StoreError:
                continue
            for entry in newer:
                seen.append(Sighting(entry.generation, entry.digest))
                handled = entry
        return seen


class _Turns(Observed):
    """Waits for its player's turn before each request."""

    def __init__(self, inner: Store, turn: Callable[[], None]) -> None:
        super().__init__(inner)
        self._turn = turn

    def before(self, verb: Verb, key: str) -> None:
        self._turn()


def _attempt(recorder: Recorder, step: Step) -> Attempt:
    recorder.offered.clear()
    registry = Registry(recorder, actor="player")
    entry: ChannelEntry | None = None
    try:
        entry = _wish(registry, step)
        outcome = Outcome.DONE
    except ConflictError:
        outcome = Outcome.CONFLICT
    except (ChannelHeldError, NotFoundError, RefusedError):
        outcome = Outcome.REFUSED
    except OutcomeUnknownError:
        outcome = Outcome.UNKNOWN
    except StoreError:
        outcome = Outcome.FAILED
    offered = frozenset(
        str(orjson.loads(data)["op_id"]) for sent in recorder.offered.values() for data in sent
    )
    return Attempt(outcome, offered, entry)


def _wish(registry: Registry, step: Step) -> ChannelEntry:
    match step.wish:
        case Wish.PROMOTE | Wish.PROMOTE_BY_PROGRAM:
            automatic = step.wish is Wish.PROMOTE_BY_PROGRAM
            return registry.promote(
                MODEL, step.version, CHANNEL, expect=step.expect, automatic=automatic, force=not automatic
            )
        case Wish.ROLLBACK:
            return registry.rollback(MODEL, CHANNEL, expect=step.expect)
        case Wish.HOLD:
            return registry.hold(MODEL, CHANNEL)
        case Wish.RELEASE:
            return registry.release(MODEL, CHANNEL)


# --- turns ----------------------------------------------------------------------------------------


class _Turn(threading.Thread):
    """Runs a job that stops before each request until it is told to go on."""

    def __init__(self, job: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(daemon=True)
        self._job = job
        # plain locks, each released by the other side, are far faster than semaphores
        self._go, self._stopped, self._one = threading.Lock(), threading.Lock(), threading.Lock()
        self._go.acquire()
        self._stopped.acquire()
        self.ended = False
        self.error: BaseException | None = None

    def run(self) -> None:
        self._go.acquire()
        try:
            self._job(self.wait)
        except BaseException as error:  # noqa: BLE001 - raised again on the test's own thread
            self.error = error
        self.ended = True
        self._stopped.release()

    def wait(self) -> None:
        with self._one:  # entries may be read several at a time
            self._stopped.release()
            self._go.acquire()

    def go_on(self) -> None:
        self._go.release()
        self._stopped.acquire()


def _take_turns(jobs: Sequence[Callable[[Callable[[], None]], None]], schedule: Sequence[int]) -> None:
    turns = [_Turn(job) for job in jobs]
    for turn in turns:
        turn.start()
    order = _order(schedule)
    going = list(turns)
    while going:
        turn = going[next(order) % len(going)]
        turn.go_on()
        if turn.ended:
            going.remove(turn)
    for turn in turns:
        turn.join()
        if turn.error is not None:
            raise turn.error


def _order(schedule: Sequence[int]) -> Iterator[int]:
    yield from schedule
    number = 0
    while True:
        yield number
        number += 1


# --- strategies -----------------------------------------------------------------------------------

steps = st.builds(
    Step,
    st.sampled_from(
        [Wish.PROMOTE, Wish.PROMOTE, Wish.PROMOTE_BY_PROGRAM, Wish.ROLLBACK, Wish.HOLD, Wish.RELEASE]
    ),
    st.integers(1, VERSIONS),
    st.none() | st.integers(0, 4),
)
flipped_bits = st.integers(0, 8 * 200)  # of which each entry has more, so no two are the same bit of it
fault_lists = st.lists(st.sampled_from(list(Fault)), max_size=12).map(tuple)
rare_faults = st.lists(st.sampled_from([Fault.NONE] * 10 + list(Fault)), max_size=24).map(tuple)
stale_lists = st.lists(st.booleans(), max_size=24).map(tuple)
# no two answers are damaged alike: what two reads agree on is what the store holds
read_harms = st.lists(
    st.builds(Harm, st.sampled_from([Damage.NONE] * 8 + [Damage.FLIPPED] * 4 + list(Damage)), flipped_bits),
    max_size=24,
    unique_by=lambda harm: harm.where,
).map(tuple)
write_harms = st.lists(st.builds(Harm, st.sampled_from(list(Damage)), flipped_bits), max_size=8).map(tuple)


def histories(troubles: st.SearchStrategy[Troubles], *, followers: bool = True) -> st.SearchStrategy[History]:
    """Histories of up to three promoters and a follower with these troubles."""
    promoters = st.lists(
        st.builds(
            lambda todo, trouble: Player(tuple(todo), 0, trouble), st.lists(steps, max_size=3), troubles
        ),
        min_size=1,
        max_size=3,
    )
    watching = st.builds(lambda trouble: Player((), 6 if followers else 0, trouble), troubles)
    return st.builds(
        lambda some, watcher, schedule, before, remembered: History(
            (*some, watcher), tuple(schedule), before, remembered
        ),
        promoters,
        watching,
        st.lists(st.integers(0, 3), max_size=40),
        st.integers(0, 3),
        st.integers(0, 3),
    )


HONEST = st.just(Troubles())
"""Nothing but a race."""

FAILING = st.builds(Troubles, faults=fault_lists, other_faults=rare_faults)
"""Lost, late and repeated requests, and 'already there' to one's own."""

STALE = st.builds(Troubles, faults=fault_lists, stale=stale_lists)
"""Reads and listings from the past as well."""

DAMAGED_READS = st.builds(Troubles, faults=fault_lists, reads=read_harms)
"""Answers with flipped bits, cut off or empty."""

DAMAGED_WRITES = st.builds(Troubles, writes=write_harms)
"""A store that acknowledges what it does not keep as it was given."""

EVERYTHING = st.builds(
    Troubles,
    faults=fault_lists,
    other_faults=rare_faults,
    stale=stale_lists,
    reads=read_harms,
    writes=write_harms,
)
"""All of it at once."""
