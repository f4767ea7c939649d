"""The log under any history: races, faults and lies, by the checker in `tests.registry.log_invariants`."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.registry import histories
from tests.registry.histories import History, play
from tests.registry.log_invariants import Outcome


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.log.FIRST_PAUSE", 0.0)


@given(histories.histories(histories.HONEST))
def test_a_race_leaves_a_whole_log_and_everyone_knows_the_outcome(history: History) -> None:
    played = play(history)
    assert played.violations() == []
    assert not {Outcome.UNKNOWN, Outcome.FAILED} & set(played.outcomes())


@given(histories.histories(histories.FAILING))
def test_lost_late_and_repeated_requests_lose_nothing_and_do_nothing_twice(history: History) -> None:
    assert play(history).violations() == []


@given(histories.histories(histories.STALE))
def test_stale_reads_and_listings_never_give_a_wrong_success(history: History) -> None:
    assert play(history).violations() == []


@given(histories.histories(histories.DAMAGED_READS))
def test_damaged_answers_never_give_a_wrong_success(history: History) -> None:
    assert play(history).violations() == []


@given(histories.histories(histories.DAMAGED_WRITES))
def test_damaged_and_dropped_writes_are_never_acknowledged(history: History) -> None:
    # such a store may spoil a log for good, but nobody is told that all is well
    assert play(history).wrong_successes() == []


@given(histories.histories(histories.EVERYTHING))
def test_everything_at_once_acknowledges_nothing_that_is_not_there(history: History) -> None:
    assert play(history).wrong_successes() == []
