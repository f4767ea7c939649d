"""One wrong answer at one place: what the writer, and everyone after it, makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ferryline.registry import Registry
from ferryline.registry.errors import (
    ConflictError,
    FerryError,
    OutcomeUnknownError,
    StoreDeniedError,
    StoreError,
)
from ferryline.registry.stores import Listed, Store, Stored
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import (
    CountingStore,
    Damage,
    DamagedReads,
    DamagedWrites,
    Fault,
    FaultyStore,
    Harm,
    Verb,
    Wrapper,
)
from tests.registry.histories import MODEL, PREFIX, facts

WRITES = frozenset({Verb.PUT_IF_ABSENT})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.log.FIRST_PAUSE", 0.0)


@pytest.fixture
def memory() -> MemoryStore:
    """Two versions, of which the first serves since generation 1."""
    store = MemoryStore()
    registry = Registry(store, actor="tester")
    for number in (1, 2):
        registry.publish(MODEL, b"model %d" % number, facts())
    registry.promote(MODEL, 1, reason="the first")
    return store


def promoted(store: Store) -> str:
    """The `op_id` of a promotion through `store`."""
    return Registry(store, actor="writer").promote(MODEL, 2).op_id


def op_ids(memory: MemoryStore) -> list[str]:
    return [entry.op_id for entry in Registry(memory).channel(MODEL).history()]


# --- the answer to the write itself ---------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.ALREADY_THERE],
        [Fault.DONE_TWICE],
        [Fault.LOST_ANSWER],
        [Fault.LOST_REQUEST],
        [Fault.LOST_ANSWER, Fault.LOST_ANSWER, Fault.ALREADY_THERE],
        [Fault.LOST_REQUEST] * 4,
        [Fault.LATE, Fault.LOST_REQUEST, Fault.LOST_REQUEST],
        [Fault.LOST_ANSWER, Fault.DENIED, Fault.NONE],
    ],
    ids=str,
)
def test_a_write_whose_answer_goes_astray_is_done_once(memory: MemoryStore, faults: list[Fault]) -> None:
    mine = promoted(FaultyStore(memory, faults, only=WRITES))
    assert op_ids(memory)[1:] == [mine]


@pytest.mark.parametrize(
    ("faults", "written"),
    [
        ([Fault.LOST_REQUEST] * 5, False),
        ([Fault.LOST_ANSWER] * 5, True),
        ([Fault.LOST_ANSWER] + [Fault.DENIED] * 4, True),
        ([Fault.LOST_REQUEST] + [Fault.DENIED] * 4, False),
    ],
    ids=str,
)
def test_what_nobody_can_tell_is_said_to_be_unknown(
    memory: MemoryStore, faults: list[Fault], written: bool
) -> None:
    with pytest.raises(OutcomeUnknownError, match="not known whether"):
        promoted(FaultyStore(memory, faults, only=WRITES))
    assert len(op_ids(memory)) == 1 + written


def test_a_write_that_was_refused_at_once_is_said_so_and_not_done(memory: MemoryStore) -> None:
    with pytest.raises(StoreDeniedError, match="expired"):
        promoted(FaultyStore(memory, [Fault.DENIED], only=WRITES))
    assert len(op_ids(memory)) == 1


def test_a_write_that_arrives_after_another_writers_is_a_conflict_and_stays_undone(
    memory: MemoryStore,
) -> None:
    late = FaultyStore(memory, [Fault.LATE], only=WRITES)

    def overtake() -> None:
        Registry(memory, actor="other").promote(MODEL, 1, reason="overtook")

    class _AfterTheWrite(Wrapper):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            try:
                return super().put_if_absent(key, data)
            finally:
                if key.startswith(PREFIX) and len(op_ids(memory)) == 1:
                    overtake()

    with pytest.raises(ConflictError):
        promoted(_AfterTheWrite(late))
    late.settle()
    assert [entry.reason for entry in Registry(memory).channel(MODEL).history()] == ["the first", "overtook"]


# --- damaged answers, one at a time ---------------------------------------------------------------


@pytest.mark.parametrize("damage", [Damage.CUT, Damage.EMPTY], ids=str)
def test_the_same_half_answer_twice_does_not_make_ones_own_entry_another_writers(
    memory: MemoryStore, damage: Damage
) -> None:
    class _AnswersCutOffOnceWritten(Wrapper):
        left = 2

        def get(self, key: str) -> Stored:
            found = super().get(key)
            if len(op_ids(memory)) == 1 or not self.left:
                return found
            self.left -= 1
            return replace(found, data=damage.done_to(found.data, 0))

    lying = FaultyStore(_AnswersCutOffOnceWritten(memory), [Fault.ALREADY_THERE], only=WRITES)
    mine = promoted(lying)
    assert op_ids(memory)[1:] == [mine]


def reads_of_a_promotion(memory: MemoryStore) -> int:
    """How many reads a promotion makes."""
    counted = CountingStore(_copy(memory))
    promoted(counted)
    return counted.calls[Verb.GET]


def _copy(memory: MemoryStore) -> MemoryStore:
    store = MemoryStore()
    for listed in memory.list(""):
        store.put(listed.key, memory.get(listed.key).data)
    return store


def test_a_bit_that_flips_on_the_way_to_a_writer_breaks_no_chain_and_names_no_wrong_file(
    memory: MemoryStore,
) -> None:
    size = len(memory.get(f"{PREFIX}0000000001.json").data)
    for which in range(reads_of_a_promotion(memory)):
        for bit in range(which, size * 8, 97):
            store = _copy(memory)
            harms = [Harm(Damage.NONE)] * which + [Harm(Damage.FLIPPED, bit)]
            mine = promoted(DamagedReads(store, harms))
            assert op_ids(store)[1:] == [mine]
            entry = Registry(store).channel(MODEL).require_head()
            manifest = Registry(store).versions(MODEL).get(2)
            assert (entry.version, entry.manifest_digest) == (2, manifest.digest)
            assert entry.blob_digest == manifest.blob.digest


@pytest.mark.parametrize("damage", [Damage.CUT, Damage.EMPTY])
def test_a_body_that_comes_cut_off_once_spoils_nothing(memory: MemoryStore, damage: Damage) -> None:
    for which in range(reads_of_a_promotion(memory)):
        store = _copy(memory)
        mine = promoted(DamagedReads(store, [Harm(Damage.NONE)] * which + [Harm(damage)]))
        assert op_ids(store)[1:] == [mine]


def test_a_flipped_bit_in_the_answer_that_tells_whose_entry_it_is_makes_no_conflict(
    memory: MemoryStore,
) -> None:
    for bit in range(0, 4000, 37):
        store = _copy(memory)
        lost = FaultyStore(store, [Fault.LOST_ANSWER, Fault.ALREADY_THERE], only=WRITES)
        mine = promoted(_FlippedOnce(lost, f"{PREFIX}0000000002.json", Harm(Damage.FLIPPED, bit)))
        assert op_ids(store)[1:] == [mine]


class _FlippedOnce(Wrapper):
    """Does `harm` to the first answer that shows `key`."""

    def __init__(self, inner: Store, key: str, harm: Harm) -> None:
        super().__init__(inner)
        self._key = key
        self._harms = [harm]

    def get(self, key: str) -> Stored:
        stored = self.inner.get(key)
        return (
            replace(stored, data=self._harms.pop()(stored.data))
            if key == self._key and self._harms
            else stored
        )


def test_a_follower_that_once_read_a_flipped_bit_follows_on(memory: MemoryStore) -> None:
    honest = Registry(memory, actor="other")
    for bit in range(0, 4000, 61):
        known = honest.channel(MODEL).require_head()
        honest.promote(MODEL, 2)
        channel = Registry(DamagedReads(memory, [Harm(Damage.FLIPPED, bit)])).channel(MODEL)
        newer = channel.newer_than(known)
        honest.promote(MODEL, 1)
        assert [entry.generation for entry in channel.newer_than(newer[-1])] == [known.generation + 2]


# --- damaged writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [Damage.FLIPPED, Damage.CUT, Damage.EMPTY, Damage.DROPPED])
def test_what_the_store_does_not_keep_is_never_said_to_be_done(memory: MemoryStore, damage: Damage) -> None:
    with pytest.raises(StoreError):
        promoted(DamagedWrites(memory, [Harm(damage, 2000)] * 5))


def test_a_write_that_is_dropped_once_is_made_again(memory: MemoryStore) -> None:
    mine = promoted(DamagedWrites(memory, [Harm(Damage.DROPPED)]))
    assert op_ids(memory)[1:] == [mine]


# --- a hint that cannot be written ----------------------------------------------------------------


def test_a_hint_that_is_never_written_costs_nothing_but_time(memory: MemoryStore) -> None:
    for _ in range(5):
        promoted(FaultyStore(memory, [Fault.LOST_REQUEST] * 9, only={Verb.PUT, Verb.PUT_IF_UNCHANGED}))
    assert len(op_ids(memory)) == 6


def test_a_store_that_lists_nothing_makes_conflicts_and_no_harm(memory: MemoryStore) -> None:
    class _Forgetful(Wrapper):
        def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
            return iter(())

    memory.delete("hint.json")
    with pytest.raises(FerryError) as caught:
        promoted(_Forgetful(memory))
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert len(op_ids(memory)) == 1
