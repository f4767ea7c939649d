"""The checker of logs finds each kind of fault, or the histories it judges would prove nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.stores.memory import MemoryStore
from tests.registry.histories import MODEL, PREFIX, facts
from tests.registry.log_invariants import Attempt, Outcome, Sighting, log_of, violations


@pytest.fixture
def entries() -> list[ChannelEntry]:
    registry = Registry(MemoryStore(), actor="tester")
    registry.publish(MODEL, b"model", facts())
    return [registry.promote(MODEL, 1, reason=f"entry {number}") for number in range(3)]


@pytest.fixture
def log(entries: list[ChannelEntry]) -> dict[int, bytes]:
    return {entry.generation: entry.encode() for entry in entries}


@pytest.fixture
def attempts(entries: list[ChannelEntry]) -> list[Attempt]:
    return [Attempt(Outcome.DONE, frozenset({entry.op_id}), entry) for entry in entries]


def sightings(entries: list[ChannelEntry]) -> list[Sighting]:
    return [Sighting(entry.generation, entry.digest) for entry in entries]


def test_an_honest_log_has_no_fault(
    log: dict[int, bytes], attempts: list[Attempt], entries: list[ChannelEntry]
) -> None:
    assert violations(log, attempts, [sightings(entries), sightings(entries[1:]), []]) == []


def test_an_unknown_outcome_may_be_either(log: dict[int, bytes], attempts: list[Attempt]) -> None:
    unknown = replace(attempts[2], outcome=Outcome.UNKNOWN, entry=None)
    absent = Attempt(Outcome.UNKNOWN, frozenset({"never arrived"}))
    assert violations(log, [*attempts[:2], unknown, absent]) == []


def test_a_hole_is_found(log: dict[int, bytes], attempts: list[Attempt]) -> None:
    del log[2]
    found = violations(log, attempts)
    assert "the numbers are [1, 3]" in found
    assert "the acknowledged generation 2 is lost" in found
    assert "entry 3 does not follow from the one before" in found


def test_a_lost_acknowledged_change_is_found(log: dict[int, bytes], attempts: list[Attempt]) -> None:
    del log[3]
    assert violations(log, attempts) == ["the acknowledged generation 3 is lost"]


def test_an_altered_entry_is_found(log: dict[int, bytes], attempts: list[Attempt]) -> None:
    log[3] = log[3].replace(b"entry 2", b"entry 9")
    assert violations(log, attempts) == ["generation 3 is another than the one that was acknowledged"]


def test_an_unreadable_entry_is_found(log: dict[int, bytes], attempts: list[Attempt]) -> None:
    log[3] = log[3][:-1]
    assert violations(log, attempts)[0].startswith("entry 3 cannot be read")


@pytest.mark.parametrize("told", [Outcome.CONFLICT, Outcome.REFUSED, Outcome.FAILED])
def test_a_change_that_was_denied_and_done_is_found(
    log: dict[int, bytes], attempts: list[Attempt], told: Outcome
) -> None:
    attempts[1] = replace(attempts[1], outcome=told, entry=None)
    assert violations(log, attempts) == [f"generation 2 was written though its writer was told {told.name}"]


def test_a_change_done_twice_is_found(log: dict[int, bytes], attempts: list[Attempt]) -> None:
    twice = replace(attempts[1], offered=attempts[1].offered | attempts[2].offered)
    assert violations(log, [attempts[0], twice]) == ["generations 2 and 3 are the same change, done twice"]


def test_an_entry_of_nobody_is_found(log: dict[int, bytes], attempts: list[Attempt]) -> None:
    assert violations(log, attempts[:2]) == ["nobody wanted generation 3"]


def test_a_follower_that_goes_back_or_sees_what_is_not_there_is_found(
    log: dict[int, bytes], attempts: list[Attempt], entries: list[ChannelEntry]
) -> None:
    back = violations(log, attempts, [sightings([entries[1], entries[0]])])
    assert back == ["a follower saw generation 1 after 2"]
    strange = violations(log, attempts, [[Sighting(4, entries[2].digest)], [Sighting(3, "sha256:other")]])
    assert len(strange) == 2


def test_a_log_is_read_from_a_store(log: dict[int, bytes]) -> None:
    store = MemoryStore()
    for number, data in log.items():
        store.put(f"{PREFIX}{number:010d}.json", data)
    assert log_of(store, PREFIX) == log
