from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.registry import rules
from ferryline.registry.canary import CanarySplit
from ferryline.registry.documents import Canary, ChannelEntry, Operation
from ferryline.registry.errors import ChannelHeldError, ConflictError, NotFoundError, UsageError
from ferryline.registry.rules import Change

DIGEST = "sha256:" + "0" * 64


def entry(generation: int, version: int, operation: Operation, *, held: bool = False) -> ChannelEntry:
    return ChannelEntry(
        model="m", channel="c", generation=generation, version=version,
        blob_digest=DIGEST, manifest_digest=DIGEST,
        operation=operation, held=held, actor="a", at=datetime.now(UTC), op_id="x", previous=None,
    )  # fmt: skip


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
        ([(P, 2), (R, 1)], [1]),
        ([(P, 1), (P, 2), (R, 3)], [1, 3]),
        ([(P, 1), (P, 2), (R, 3), (R, 1)], [1]),
        ([(P, 1), (P, 2), (P, 1)], [1, 2, 1]),
    ],
)
def test_going_back_undoes(steps: list[tuple[Operation, int]], stack: list[int]) -> None:
    log: list[ChannelEntry] = []
    for operation, version in steps:
        log.append(following(log, Change(operation, version, force=True)))
    assert stack_of(log) == stack


def following(log: list[ChannelEntry], change: Change) -> ChannelEntry:
    head = log[-1] if log else None
    decision = rules.decide(head, change, channel="m:c")
    restored = None
    if change.operation is R and head is not None and decision.version != head.version:
        restored = rules.restored_entry(undo_chain(log), decision.version)
    return entry(decision.generation, decision.version, change.operation, held=decision.held).model_copy(
        update={"undoes_to": rules.undo_generation(head, decision, restored)}
    )


def undo_chain(log: list[ChannelEntry]) -> Iterator[ChannelEntry]:
    present = log[-1]
    while present.undoes_to is not None:
        present = log[present.undoes_to - 1]
        yield present


def stack_of(log: list[ChannelEntry]) -> list[int]:
    """What serves and what one could go back through, oldest first."""
    return [item.version for item in [*undo_chain(log)][::-1] + log[-1:]] if log else []


def plain_stack(log: list[ChannelEntry]) -> list[int]:
    """The same, from the whole history: what the links spare reading."""
    stack: list[int] = []
    for item in log:
        if item.operation is R and item.version in stack:
            while stack[-1] != item.version:
                stack.pop()
        elif item.operation is R:
            stack[-1:] = [item.version]
        elif not stack or stack[-1] != item.version:
            stack.append(item.version)
    return stack


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
def test_generations_rise_by_one_and_links_lead_where_the_whole_history_does(
    steps: list[tuple[Operation, int]],
) -> None:
    log: list[ChannelEntry] = []
    for operation, version in steps:
        wanted = version if operation in {P, R} else None
        try:
            log.append(following(log, Change(operation, wanted, force=True)))
        except NotFoundError:
            assert not log
            continue
        assert log[-1].generation == len(log)
        assert stack_of(log) == plain_stack(log)


def with_canary(head: ChannelEntry, version: int, percent: float) -> ChannelEntry:
    return head.model_copy(
        update={
            "canary": Canary(version=version, blob_digest=DIGEST, manifest_digest=DIGEST, percent=percent)
        }
    )


def test_a_canary_serves_beside_and_ends_with_the_next_decision() -> None:
    head = entry(3, 1, P)
    decision = rules.decide(head, Change(P, 2, canary_percent=10), channel="m:c")
    assert decision == rules.Decision(4, 1, held=False, canary=rules.CanaryDecision(2, 10))
    running = with_canary(entry(4, 1, P), 2, 10)
    assert rules.decide(running, Change(P, 2), channel="m:c") == rules.Decision(5, 2, held=False)
    assert rules.decide(running, Change(R, 1), channel="m:c") == rules.Decision(5, 1, held=True)
    assert rules.decide(running, Change(H), channel="m:c").canary == rules.CanaryDecision(2, 10)


def test_no_program_decides_over_a_running_canary() -> None:
    running = with_canary(entry(4, 1, P), 2, 10)
    with pytest.raises(ChannelHeldError, match="10 % of m:c as a canary"):
        rules.decide(running, Change(P, 3, automatic=True), channel="m:c")


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.0, float("nan"), float("inf")])
def test_a_share_that_is_none_is_wrong_usage(percent: float) -> None:
    with pytest.raises(UsageError, match="percent"):
        rules.decide(entry(3, 1, P), Change(P, 2, canary_percent=percent), channel="m:c")


def test_a_canary_is_a_second_version_beside_one_that_serves() -> None:
    with pytest.raises(UsageError, match="another version"):
        rules.decide(entry(3, 1, P), Change(P, 1, canary_percent=10), channel="m:c")
    with pytest.raises(NotFoundError):
        rules.decide(None, Change(P, 1, canary_percent=10), channel="m:c")


@given(st.binary(max_size=40), st.floats(0.01, 99.0), st.floats(0, 0.99))
def test_a_higher_share_takes_no_key_back(key: bytes, low: float, more: float) -> None:
    high = low + more
    if CanarySplit("m:c", 2, low).takes(key):
        assert CanarySplit("m:c", 2, high).takes(key)


def test_a_canary_gets_about_its_share() -> None:
    split = CanarySplit("m:c", 2, 10)
    assert 0.09 < sum(split.takes(f"key-{number}".encode()) for number in range(20_000)) / 20_000 < 0.11
