from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import rules
from registry.documents import ChannelEntry, Operation
from registry.errors import ChannelHeldError, ConflictError, NotFoundError
from registry.rules import Change

DIGEST = "sha256:" + "0" * 64


def entry(generation: int, version: int, operation: Operation, *, held: bool = False) -> ChannelEntry:
    return ChannelEntry(
        model="m", channel="c", generation=generation, version=version,
        blob_digest=DIGEST, manifest_digest=DIGEST,
        operation=operation, held=held, actor="a", at=datetime.now(UTC), op_id="x", previous=None,
    )  # fmt: skip


def history_of(*steps: tuple[Operation, int]) -> list[ChannelEntry]:
    return [entry(number, version, operation) for number, (operation, version) in enumerate(steps, 1)]


P, R, H, L = Operation.PROMOTE, Operation.ROLLBACK, Operation.HOLD, Operation.RELEASE


@pytest.mark.parametrize(
    ("steps", "stack"),
    [
        ([], []),
        ([(P, 1), (P, 2), (P, 3)], [1, 2, 3]),
        ([(P, 1), (P, 2), (P, 3), (R, 2)], [1, 2]),
        ([(P, 1), (P, 2), (P, 3), (R, 2), (R, 1)], [1]),
        ([(P, 1), (P, 2), (H, 2), (L, 2)], [1, 2]),
        ([(P, 1), (P, 2), (P, 3), (R, 1), (P, 4)], [1, 4]),
        ([(P, 2), (R, 1)], [2, 1]),
        ([(P, 1), (P, 2), (P, 1)], [1, 2, 1]),
    ],
)
def test_going_back_undoes(steps: list[tuple[Operation, int]], stack: list[int]) -> None:
    assert rules.serving_stack(history_of(*steps)) == stack


def test_there_is_nothing_to_go_back_to_after_one_version() -> None:
    with pytest.raises(NotFoundError, match="--to VERSION"):
        rules.rollback_target(history_of((P, 1), (P, 1)), channel="m:c")


def test_the_first_entry_is_a_promotion() -> None:
    assert rules.decide(None, Change(P, 5, expect=0), channel="m:c") == rules.Decision(1, 5, held=False)
    for operation in (R, H, L):
        with pytest.raises(NotFoundError):
            rules.decide(None, Change(operation, 5), channel="m:c")


def test_an_expectation_that_does_not_hold_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match="generation 3, not 2"):
        rules.decide(entry(3, 1, P), Change(P, 2, expect=2), channel="m:c")


def test_a_held_channel_refuses_programs_always_and_people_unless_forced() -> None:
    head = entry(4, 2, R, held=True)
    for change in (Change(P, 5, automatic=True), Change(P, 5, automatic=True, force=True), Change(P, 5)):
        with pytest.raises(ChannelHeldError, match="ferry release m:c"):
            rules.decide(head, change, channel="m:c")
    assert rules.decide(head, Change(P, 5, force=True), channel="m:c") == rules.Decision(5, 5, held=False)
    assert rules.decide(head, Change(R, 1), channel="m:c") == rules.Decision(5, 1, held=True)
    assert rules.decide(head, Change(L), channel="m:c") == rules.Decision(5, 2, held=False)


def test_a_rollback_and_a_hold_hold() -> None:
    head = entry(1, 1, P)
    assert rules.decide(head, Change(R, 1), channel="m:c").held
    assert rules.decide(head, Change(H), channel="m:c") == rules.Decision(2, 1, held=True)


operations = st.lists(st.tuples(st.sampled_from(Operation), st.integers(1, 4)), max_size=30)


@given(operations)
def test_generations_rise_by_one_and_rollbacks_lead_to_what_served(
    steps: list[tuple[Operation, int]],
) -> None:
    log: list[ChannelEntry] = []
    for operation, version in steps:
        head = log[-1] if log else None
        wanted = version if operation is P else None
        if operation is R:
            try:
                wanted = rules.rollback_target(log, channel="m:c")
            except NotFoundError:
                continue
        try:
            decision = rules.decide(head, Change(operation, wanted, force=True), channel="m:c")
        except NotFoundError:
            continue
        assert decision.generation == len(log) + 1
        log.append(entry(decision.generation, decision.version, operation, held=decision.held))
        assert rules.serving_stack(log)[-1] == log[-1].version
        assert {*rules.serving_stack(log)} <= {item.version for item in log}
