"""The keeper with a real registry in memory: attempts that follow each other, and a store that goes away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from ferryline.flink_scoring.timeline.documents import (
    Reserved,
    TimelineEntry,
    log_name,
    log_prefix,
    reservations_prefix,
)
from ferryline.flink_scoring.timeline.journal import ENTRIES_KEPT, ENTRIES_KEPT_FOR, Journal, Place
from ferryline.flink_scoring.timeline.keeper import Keeper
from ferryline.flink_scoring.timeline.models import Models
from ferryline.flink_scoring.timeline.rules import Assigned, Switch
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.errors import MissingRightError, RefusedError, StoreUnreachableError
from ferryline.registry.stores import Listed, Store
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Wrapper
from tests.support.waiting import DEADLINE, wait_for

MakeModel = Callable[..., bytes]


class Outage(Wrapper):
    """A store that can be away, and that may forbid writing."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.is_away = False
        self.forbids = False
        self.loses_answers = False
        self.refused = 0

    def put(self, key: str, data: bytes) -> None:
        self._judge(writes=True)
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._judge(writes=True)
        written = super().put_if_absent(key, data)
        if self.loses_answers:
            self.is_away = True
        self._judge()
        return written

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        self._judge()
        return super().list(prefix, after=after)

    def _judge(self, *, writes: bool = False) -> None:
        if self.forbids and writes:
            raise MissingRightError(self.url, "s3:PutObject on jobs/")
        if self.is_away:
            self.refused += 1
            raise StoreUnreachableError("the store is away")


class Lives:
    """The lives of a subtask that scores partition 0, one attempt after the other."""

    def __init__(self, serve: Callable[[int], ServedModel]) -> None:
        self.store = Outage(MemoryStore())
        self._serve = serve
        self.models = {1: serve(1)}
        self.recalled: list[int] = []
        self.gone: set[int] = set()
        self.secret: set[int] = set()
        self.serving = 1
        self.keeper: Keeper | None = None
        self.attempts = 0

    def promote(self) -> None:
        generation = max(self.models) + 1
        self.models[generation] = self._serve(generation)
        self.serving = generation

    def load(self, wanted: Assigned) -> ServedModel:
        if wanted.generation in self.gone:
            raise RefusedError("blob", "it was collected", "Publish it again")
        if wanted.generation in self.secret:
            raise MissingRightError(self.store.url, "s3:GetObject on blobs/")
        self.recalled.append(wanted.generation)
        return self.models[wanted.generation]

    def begin(self, *, patience: float = DEADLINE) -> Keeper:
        self.attempts += 1
        place = Place("digits", "digits.in", "", f"attempt-{self.attempts}")
        models = Models(lambda: self.models[self.serving], self)
        self.keeper = Keeper(Journal(self.store, place), models, place.log_of, patience=patience)
        return self.keeper

    def score(self, first: int, last: int, *, partition: int = 0) -> list[int]:
        """The generation of each offset."""
        assert self.keeper is not None
        offsets = np.arange(first, last + 1)
        answer = [0] * len(offsets)
        for served, rows in self.keeper.choose(np.full(len(offsets), partition, np.int32), offsets):
            for row in range(len(offsets)) if rows is None else rows.tolist():
                assert answer[row] == 0
                answer[row] = served.generation
        return answer

    def until_switched(self, offset: int) -> tuple[int, list[int]]:
        """Scores a few records at a time until what serves scores: the next offset, and the generations."""
        seen: list[int] = []

        def has_switched() -> bool:
            seen.extend(self.score(offset + len(seen), offset + len(seen) + 9))
            return seen[-1] == self.serving

        wait_for(has_switched, f"generation {self.serving} to score")
        return offset + len(seen), seen

    def entries(self, partition: int = 0) -> list[TimelineEntry]:
        prefix = log_prefix("digits", log_name("digits.in", "", partition))
        keys = [listed.key for listed in self.store.inner.list(prefix)]
        return [TimelineEntry.decode(self.store.inner.get(key).data, key=key) for key in keys]


@pytest.fixture
def lives(serve: Callable[[bytes], ServedModel], constant_model: MakeModel) -> Iterator[Lives]:
    made = Lives(lambda number: serve(constant_model(number % 10)))
    yield made
    made.store.is_away = made.store.loses_answers = False
    if made.keeper is not None:
        made.keeper.stop()


def test_the_first_entry_is_written_before_the_first_record_is_scored(lives: Lives) -> None:
    lives.begin()
    assert lives.score(7, 9) == [1, 1, 1]
    entry = lives.entries()[0]
    assert (entry.number, entry.offset, entry.generation, entry.version) == (1, 7, 1, 1)
    assert entry.digest_of_file == lives.models[1].digest


def test_a_switch_falls_between_two_offsets_and_a_restored_attempt_switches_at_the_same(lives: Lives) -> None:
    lives.begin()
    seen = lives.score(0, 49)
    lives.promote()
    following, more = lives.until_switched(50)
    seen += [*more, *lives.score(following, following + 9)]
    assert sorted(seen) == seen
    for _ in range(2):  # killed, and killed again
        lives.begin()
        assert [*lives.score(20, 39), *lives.score(40, len(seen) - 1)] == seen[20:]
    assert set(lives.recalled) == {1}


def test_a_generation_that_came_meanwhile_does_not_score_what_was_scored(lives: Lives) -> None:
    lives.begin()
    assert lives.score(0, 99) == [1] * 100
    lives.promote()
    lives.begin()
    assert lives.score(40, 99) == [1] * 60
    _, more = lives.until_switched(100)
    assert set(more) <= {1, 2}


def test_an_attempt_after_an_orderly_stop_switches_at_once(lives: Lives) -> None:
    keeper = lives.begin()
    lives.score(0, 99)
    keeper.stop()
    lives.promote()
    lives.begin()
    assert lives.score(100, 109) == [2] * 10
    assert lives.recalled == []


def test_whatever_serves_when_a_batch_comes_scores_it(lives: Lives) -> None:
    lives.begin()
    for first in range(0, 1000, 100):
        assert lives.score(first, first + 99) == [lives.serving] * 100
        lives.promote()


def test_partitions_have_timelines_of_their_own(lives: Lives) -> None:
    keeper = lives.begin()
    offsets = np.array([5, 100, 6, 101, 7])
    shares = keeper.choose(np.array([0, 3, 0, 3, 0], np.int32), offsets)
    assert [(served.generation, rows) for served, rows in shares] == [(1, None)]
    assert (lives.entries(0)[0].offset, lives.entries(3)[0].offset) == (5, 100)


def test_a_batch_that_a_switch_falls_into_is_scored_by_two(lives: Lives) -> None:
    lives.begin()
    lives.score(0, 9)
    lives.promote()
    last, seen = lives.until_switched(10)
    lives.begin()
    replayed = lives.score(0, last - 1)
    assert replayed == [1] * 10 + seen
    assert set(replayed) == {1, 2}


def test_a_version_that_is_gone_is_replaced_by_what_serves_and_counted(lives: Lives) -> None:
    lives.begin()
    lives.score(0, 9)
    lives.promote()
    lives.gone.add(1)
    keeper = lives.begin()
    assert lives.score(0, 9) == [2] * 10
    assert keeper.counts.replayed_otherwise == 10


def test_a_version_that_may_not_be_read_is_replaced_too_and_the_missing_right_is_told(lives: Lives) -> None:
    lives.begin()
    lives.score(0, 9)
    lives.promote()
    lives.secret.add(1)
    keeper = lives.begin()
    with capture_logs() as told:
        assert lives.score(0, 4) == [2] * 5
        assert lives.score(5, 9) == [2] * 5
    assert keeper.counts.replayed_otherwise == 10
    [line] = [each for each in told if each["log_level"] == "error"]
    assert line["generation"] == 1
    assert "s3:GetObject on blobs/" in line["reason"]
    lives.promote()
    wait_for(lambda: lives.entries()[-1].generation == 3, "a switch: timelines are still on")


@contextmanager
def waits_of_this_thread(keeper: Keeper) -> Iterator[list[float | None]]:
    """What a caller of the keeper waits meanwhile; its writer waits as it does."""
    changed, waits, me = keeper._shared.changed, [], threading.get_ident()

    def wait(seconds: float | None = None) -> bool:
        if threading.get_ident() == me:
            waits.append(seconds)
        return threading.Condition.wait(changed, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changed, "wait", wait)
        yield waits


def test_while_the_store_is_away_scoring_goes_on_and_tells_what_is_not_covered(lives: Lives) -> None:
    keeper = lives.begin(patience=0.3)
    lives.score(0, 9)
    lives.store.is_away = True
    assert lives.score(10, 200_000) == [1] * 199_991
    with waits_of_this_thread(keeper) as waits:
        assert lives.score(200_001, 900_000) == [1] * 700_000
    assert waits == [], "it waits once, not at every batch"
    assert keeper.counts.unrecorded > 0
    lives.store.is_away = False
    lives.promote()
    following, _ = lives.until_switched(900_001)
    counted = keeper.counts.unrecorded
    assert lives.score(following, following) == [2]
    assert keeper.counts.unrecorded == counted


def test_a_switch_whose_answer_is_lost_is_given_up_and_corrected(lives: Lives) -> None:
    lives.begin(patience=0.3)
    seen = lives.score(0, 9)
    lives.store.loses_answers = True  # the entry is written and nobody hears of it
    lives.promote()
    wait_for(lambda: lives.store.is_away, "the loss of an answer")
    seen += lives.score(10, 4009)
    assert set(seen) == {1}
    lives.store.loses_answers = lives.store.is_away = False
    following, more = lives.until_switched(4010)
    seen += more
    lives.begin()
    assert lives.score(0, following - 1) == seen


def test_a_partition_that_begins_waits_for_the_store(lives: Lives) -> None:
    lives.begin()
    lives.store.is_away = True
    scored: list[list[int]] = []
    thread = threading.Thread(target=lambda: scored.append(lives.score(0, 9)))
    thread.start()
    wait_for(lambda: lives.store.refused >= 3, "three questions that the store does not answer")
    assert scored == []
    lives.store.is_away = False
    thread.join(DEADLINE)
    assert scored == [[1] * 10]


def test_credentials_that_may_not_write_timelines_score_by_what_serves(lives: Lives) -> None:
    lives.store.forbids = True
    lives.begin()
    assert lives.score(0, 9) == [1] * 10
    lives.promote()
    assert lives.score(10, 19) == [2] * 10


def test_credentials_that_lose_the_right_score_by_what_serves_from_then_on(lives: Lives) -> None:
    lives.begin()
    lives.score(0, 9)
    lives.store.forbids = True
    lives.promote()
    lives.until_switched(10)


def test_an_attempt_that_was_given_up_writes_no_more(lives: Lives) -> None:
    zombie = lives.begin()
    lives.score(0, 9)
    owner = lives.begin()
    lives.score(5, 9)
    lives.promote()
    following, seen = lives.until_switched(10)
    lives.keeper = zombie
    lives.score(10, 500)
    zombie.stop()
    assert {entry.attempt for entry in lives.entries()[1:]} == {"attempt-2"}
    owner.stop()
    lives.begin()
    assert lives.score(10, following - 1) == seen


# --- the journal --------------------------------------------------------------------------------------


class Aged(Wrapper):
    """A store whose objects were written `age` ago, but for those that `young` names."""

    age = timedelta()
    young: tuple[str, ...] = ()

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for listed in super().list(prefix, after=after):
            age = timedelta() if listed.key.endswith(self.young) else self.age
            yield Listed(listed.key, listed.size, listed.modified_at - age)


def write(journal: Journal, numbers: range) -> None:
    by = Assigned("digits:production", 1, 1, f"sha256:{1:064x}")
    for number in numbers:
        switch = Switch(number, number * 10, by)
        journal.append(0, number, journal.entry(0, switch))


@pytest.mark.parametrize("hint", [0, 1, 25, 30])
def test_no_more_is_read_than_decides(hint: int) -> None:
    journal = Journal(MemoryStore(), Place("digits", "in", "", "one"))
    write(journal, range(1, 31))
    assert [switch.number for switch in journal.written(0, 275, newest=hint)] == [27, 28, 29, 30]
    assert [switch.number for switch in journal.written(0, 0, newest=hint)] == list(range(1, 31))


def test_a_hint_that_is_wrong_costs_nothing_but_time() -> None:
    journal = Journal(MemoryStore(), Place("digits", "in", "", "one"))
    write(journal, range(1, 4))
    assert [switch.number for switch in journal.written(0, 30, newest=900)] == [3]


def test_old_entries_go_but_for_those_that_a_checkpoint_may_need() -> None:
    store = Aged(MemoryStore())
    journal = Journal(store, Place("digits", "in", "", "one"))
    write(journal, range(1, 31))
    journal.reserve({})
    Journal(store, Place("digits", "in", "", "other")).reserve({})
    assert list(journal.outdated({0: 30})) == []
    store.age = ENTRIES_KEPT_FOR + timedelta(days=1)
    outdated = list(journal.outdated({0: 30}))
    assert len(outdated) == 19 + 1
    for key in outdated:
        journal.remove(key)
    prefix = log_prefix("digits", log_name("in", "", 0))
    assert len(list(store.list(prefix))) == ENTRIES_KEPT + 1
    left = [listed.key for listed in store.list(reservations_prefix("digits"))]
    assert [key.rpartition("/")[2] for key in left] == ["one.json"]
    assert [switch.number for switch in journal.written(0, 0)] == list(range(20, 31))


def test_what_attempts_of_long_ago_reserved_goes_once_another_says_as_much() -> None:
    store = Aged(MemoryStore())
    store.age, store.young = timedelta(hours=2), ("begins.json",)
    place = {name: Place("digits", "in", "", name) for name in ("crashed", "idle", "stopped", "begins")}
    for name, logs in (
        ("crashed", {"in-0": Reserved(until=90, newest=1), "in-1": Reserved(until=70, newest=1)}),
        ("idle", {"in-1": Reserved(until=70, newest=2)}),
        ("stopped", {"in-0": Reserved(until=95, newest=2)}),
    ):
        Journal(store, place[name]).reserve(logs)

    def outdated() -> list[str]:
        return [Path(key).stem for key in Journal(store, place["begins"]).outdated({})]

    assert outdated() == ["crashed"], "the others say as much"
    Journal(store, place["begins"]).reserve({"in-0": Reserved(until=95, newest=3)})
    assert outdated() == ["stopped", "crashed"], "nobody has begun partition 1 yet"
    Journal(store, place["begins"]).reserve(
        {"in-0": Reserved(until=95, newest=3), "in-1": Reserved(until=71, newest=3)}
    )
    assert outdated() == ["stopped", "idle", "crashed"]


class Slow(Outage):
    """A store that takes its time to remove; one may see it, and forbid it."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.go_on = threading.Event()
        self.removing = threading.Event()
        self.forbids_removing = False

    def delete(self, key: str) -> None:
        self.removing.set()
        assert self.go_on.wait(DEADLINE)
        if self.forbids_removing:
            raise MissingRightError(self.url, "s3:DeleteObject on jobs/")
        super().delete(key)


@pytest.mark.parametrize("forbids", [False, True])
def test_an_attempt_tidies_up_as_soon_as_it_begins_and_no_record_waits_for_it(
    lives: Lives, *, forbids: bool
) -> None:
    aged = Aged(MemoryStore())
    aged.age, aged.young = timedelta(hours=2), ("attempt-2.json",)
    lives.store = slow = Slow(aged)
    keeper = lives.begin()
    lives.score(0, 9)
    keeper.stop()
    slow.forbids_removing = forbids
    lives.begin()
    lives.score(5, 9)
    assert slow.removing.wait(DEADLINE)
    lives.promote()
    wait_for(lambda: lives.entries()[-1].generation == 2, "a switch that is written meanwhile")
    slow.go_on.set()
    if forbids:
        lives.promote()
        wait_for(lambda: lives.entries()[-1].generation == 3, "a switch: timelines are still on")
    else:
        wait_for(lambda: len(list(aged.list(reservations_prefix("digits")))) == 1, "the removal")


@pytest.mark.parametrize("topic", ["digits", "Digits.v1", "_x", ".hidden", "-odd", "t" * 249])
def test_every_topic_gives_a_log_that_stores_can_hold(topic: str) -> None:
    store = MemoryStore()
    journal = Journal(store, Place("p", topic, "ab" * 16, "one"))
    write(journal, range(1, 2))
    assert [switch.number for switch in journal.written(0, 0)] == [1]
