from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.registry.errors import BrokenChainError, ConflictError, OutcomeUnknownError, StoreDeniedError
from ferryline.registry.log import ATTEMPTS, LAST_NUMBER, AppendLog
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Fault, FaultyStore, missing

PREFIX = "models/digits/versions/"
faults = st.lists(st.sampled_from(list(Fault)), max_size=12)


def log_on(store: MemoryStore | FaultyStore) -> AppendLog:
    return AppendLog(store, PREFIX, pause=lambda _: None)


def test_an_empty_log_has_head_zero() -> None:
    log = log_on(MemoryStore())
    assert log.newest() is None
    assert log.read(1) is None
    with pytest.raises(BrokenChainError, match="is missing from the log"):
        log.require(1)


def test_nothing_is_written_beyond_the_last_number() -> None:
    store = MemoryStore()
    log = log_on(store)
    log.append(LAST_NUMBER, b"forged")
    with pytest.raises(BrokenChainError, match=r"9999999999\.json is the last number"):
        log.append(LAST_NUMBER + 1, b"mine")
    assert len(list(store.list(""))) == 1


def test_numbers_ignore_what_is_no_entry() -> None:
    store = MemoryStore()
    log = log_on(store)
    log.append(1, b"a")
    log.append(2, b"b")
    store.put(f"{PREFIX}README", b"")
    store.put(f"{PREFIX}12.json", b"")
    assert list(log.numbers()) == [1, 2]
    assert log.newest(at_least=1) == (2, b"b")
    assert log.newest(at_least=2) == (2, b"b")
    assert log.newest(at_least=9) == (2, b"b"), "a number that is not written is not believed"


def test_the_second_writer_of_a_number_conflicts() -> None:
    log = log_on(MemoryStore())
    log.append(1, b"mine")
    with pytest.raises(ConflictError, match="someone else first"):
        log.append(1, b"theirs")


def test_a_store_that_never_answers_leaves_the_outcome_unknown() -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    with pytest.raises(OutcomeUnknownError, match="not known whether"):
        log_on(store).append(1, b"x")
    assert store.requests == ATTEMPTS


@given(st.lists(faults, min_size=1, max_size=4))
def test_an_acknowledged_append_is_there_once_and_a_refused_one_is_another_writers(
    schedules: list[list[Fault]],
) -> None:
    store = MemoryStore()
    acknowledged: list[bytes] = []
    for writer, schedule in enumerate(schedules):
        log = log_on(FaultyStore(store, schedule))
        entry = b"entry of writer %d" % writer
        try:
            log.append(1, entry)
        except ConflictError:
            assert store.get(log.key(1)).data != entry
        except OutcomeUnknownError:
            pass
        except StoreDeniedError:
            assert missing(store, log.key(1)) or store.get(log.key(1)).data != entry
        else:
            acknowledged.append(entry)
    assert len(acknowledged) <= 1
    if acknowledged:
        assert store.get(log.key(1)).data == acknowledged[0]
