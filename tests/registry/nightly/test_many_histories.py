"""Thousands of histories: those of the unit tests, more of them, each in several orders of its requests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.registry import histories
from tests.registry.histories import History, Played, play

MANY = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink],
)
ORDERS = ((), (1, 0, 2, 3), (2, 2, 1, 1, 0, 0), (3, 0) * 8)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.log.FIRST_PAUSE", 0.0)


def every_order(history: History) -> list[Played]:
    return [play(replace(history, schedule=order + history.schedule)) for order in ORDERS]


@MANY
@given(histories.histories(histories.HONEST | histories.FAILING))
def test_races_and_faults(history: History) -> None:
    assert [played.violations() for played in every_order(history)] == [[]] * len(ORDERS)


@MANY
@given(histories.histories(histories.STALE))
def test_stale_answers(history: History) -> None:
    assert [played.violations() for played in every_order(history)] == [[]] * len(ORDERS)


@MANY
@given(histories.histories(histories.DAMAGED_READS))
def test_damaged_answers(history: History) -> None:
    assert [played.violations() for played in every_order(history)] == [[]] * len(ORDERS)


@MANY
@given(histories.histories(histories.DAMAGED_WRITES))
def test_damaged_writes(history: History) -> None:
    assert [played.wrong_successes() for played in every_order(history)] == [[]] * len(ORDERS)


@MANY
@given(histories.histories(histories.EVERYTHING))
def test_everything_at_once_acknowledges_nothing_that_is_not_there(history: History) -> None:
    assert [played.wrong_successes() for played in every_order(history)] == [[]] * len(ORDERS)
