"""The rules of execution, without a clock, a thread or a model."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ferryline.grpc_server.execution.batches import alike, joined, split
from ferryline.grpc_server.execution.costs import OUTLIER, RunCosts
from ferryline.grpc_server.execution.line import Line
from ferryline.grpc_server.execution.policy import (
    LONGEST_RETRY,
    SHORTEST_RETRY,
    BatchPolicy,
    QueueLimits,
    parse_batching,
    retry_after,
)
from ferryline.registry.errors import UsageError


@dataclass(frozen=True, eq=False)
class Guest:
    rows: int = 1
    size: int = 10
    arrived: float = 0.0
    group: Hashable | None = "a"


# --- who runs together ----------------------------------------------------------------------------

guests = st.builds(
    Guest,
    rows=st.integers(1, 12),
    size=st.integers(0, 100),
    group=st.sampled_from(["a", "b", None]),
)
policies = st.builds(BatchPolicy, st.integers(1, 10), st.sampled_from([0, 500, 1_000_000]))


@given(policies, st.lists(guests, max_size=30), st.data())
def test_every_guest_leaves_once_in_batches_that_keep_the_rules(
    policy: BatchPolicy, coming: list[Guest], data: st.DataObject
) -> None:
    line: Line[Guest] = Line(policy)
    waiting: list[Guest] = []
    now = 0.0
    for guest in coming:
        now += data.draw(st.sampled_from([0.0, 0.0001, 0.001]))
        arriving = Guest(guest.rows, guest.size, now, guest.group)
        line.add(arriving)
        waiting.append(arriving)
        if data.draw(st.booleans()):
            leave(line, waiting, now)
        if waiting and data.draw(st.integers(0, 9)) == 0:
            gone = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            line.remove(gone)
            assert gone not in line
        assert (line.count, line.size) == (len(waiting), sum(each.size for each in waiting))
        assert set(line) == set(waiting)
    while waiting:
        due = line.due_at()
        assert due is not None
        now = max(now, due)
        assert leave(line, waiting, now), "what is due goes"
    assert line.due_at() is None


def leave(line: Line[Guest], waiting: list[Guest], now: float) -> list[Guest]:
    batch = line.next_batch(now)
    if not batch:
        assert all(not is_due(line.policy, each, waiting, now) for each in waiting)
        return []
    first, rows = batch[0], sum(each.rows for each in batch)
    assert {each.group for each in batch} == {first.group}
    assert len(batch) == 1 or (first.group is not None and rows <= line.policy.max_batch_size)
    of_group = [each for each in waiting if each.group == first.group]
    assert batch == of_group[: len(batch)], "nobody of a group is overtaken"
    assert is_due(line.policy, first, waiting, now)
    earlier = [each for each in waiting if each.arrived < first.arrived]
    assert all(not is_due(line.policy, each, waiting, now) for each in earlier)
    left = of_group[len(batch) :]
    assert not (left and first.group and rows + left[0].rows <= line.policy.max_batch_size), "it was not full"
    for each in batch:
        line.remove(each)
        waiting.remove(each)
    return batch


def is_due(policy: BatchPolicy, guest: Guest, waiting: list[Guest], now: float) -> bool:
    of_group = [each for each in waiting if each.group == guest.group]
    if of_group[0] is not guest:
        return False
    full = guest.group is None or sum(each.rows for each in of_group) >= policy.max_batch_size
    return full or guest.arrived + policy.delay <= now


def test_a_full_batch_does_not_wait_and_a_large_request_runs_alone() -> None:
    line: Line[Guest] = Line(BatchPolicy(4, 1000))
    pair = [Guest(rows=2), Guest(rows=1)]
    for each in pair:
        line.add(each)
    assert (line.next_batch(0.0009), line.due_at()) == ([], 0.001)
    large = Guest(rows=9)
    line.add(large)
    assert line.next_batch(0.0) == pair
    for each in pair:
        line.remove(each)
    assert line.next_batch(0.0) == [large]


def test_who_left_cannot_leave_again() -> None:
    line: Line[Guest] = Line(BatchPolicy(4))
    with pytest.raises(KeyError):
        line.remove(Guest())


# --- what waits -----------------------------------------------------------------------------------


@given(st.integers(0, 20), st.integers(0, 2000), st.integers(0, 2000))
def test_a_queue_is_bounded_and_never_shut(waiting: int, waiting_size: int, size: int) -> None:
    limits = QueueLimits(requests=10, size=1000)
    admitted = limits.admit(size, waiting=waiting, waiting_size=waiting_size)
    if waiting == 0:
        assert admitted
    else:
        assert admitted == (waiting + 1 <= 10 and waiting_size + size <= 1000)


@given(st.integers(0, 10**6), st.floats(0, 10**4))
def test_the_time_to_retry_is_within_reason(waiting: int, each: float) -> None:
    assert SHORTEST_RETRY <= retry_after(waiting, each) <= LONGEST_RETRY


def test_the_time_to_retry_is_that_of_the_queue() -> None:
    assert retry_after(20, 0.25) == 5.0


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("digits=32:500us", BatchPolicy(32, 500)),
        ("digits=32:2ms", BatchPolicy(32, 2000)),
        ("digits=32:500", BatchPolicy(32, 500)),
        ("digits=1:0", BatchPolicy(1, 0)),
        ("digits=32", BatchPolicy(32, 0)),
    ],
)
def test_batching_as_people_write_it(text: str, policy: BatchPolicy) -> None:
    assert parse_batching([text, "other=8"]) == {"digits": policy, "other": BatchPolicy(8, 0)}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["digits"], "not of the form"),
        (["digits=32:5s"], "not of the form"),
        (["digits=-1"], "not of the form"),
        (["digits=٣"], "not of the form"),
        (["digits=0"], "batches of 0 rows"),
        (["digits=999999"], "batches of 999999 rows"),
        (["digits=2:99999ms"], "at most"),
        (["digits=2", "digits=3"], "set twice"),
    ],
)
def test_other_batching_is_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_batching(texts)


# --- what a run costs -----------------------------------------------------------------------------

sizes = st.integers(0, 2**40)
durations = st.floats(1, 1e12)


@given(sizes, st.lists(durations, min_size=1))
def test_an_average_lies_among_what_was_seen(size: int, seen: list[float]) -> None:
    costs = RunCosts()
    for ns in seen:
        costs.saw(size, ns)
    assert min(seen) * 0.999 <= costs.expected(size) <= max(seen) * 1.001


def test_nothing_seen_is_beyond_any_threshold() -> None:
    assert RunCosts().expected(1) == float("inf")


@given(st.integers(1, 2**20), st.integers(1, 2**20), durations)
def test_an_unseen_size_is_bounded_by_its_neighbours(seen: int, asked: int, ns: float) -> None:
    costs = RunCosts()
    costs.saw(seen, ns)
    expected = costs.expected(asked)
    assert ns <= expected <= ns * max(1, 2 * asked / seen + 1) * 1.001


def test_one_outlier_does_not_decide_and_a_change_does() -> None:
    costs = RunCosts()
    costs.saw(1, 10_000)
    costs.saw(1, 50_000_000)
    assert costs.expected(1) <= 10_000 * OUTLIER
    for _ in range(20):
        costs.saw(1, 50_000_000)
    assert costs.expected(1) > 1_000_000
    for _ in range(50):
        costs.saw(1, 10_000)
    assert costs.expected(1) < 100_000


# --- joined and split -----------------------------------------------------------------------------


@given(st.lists(arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3))), min_size=1, max_size=6))
def test_what_is_joined_and_split_is_what_it_was(parts: list[np.ndarray]) -> None:
    whole = joined([{"x": part, "n": part[:, 0]} for part in parts])
    again = split(whole, [len(part) for part in parts])
    assert again is not None
    for part, found in zip(parts, again, strict=True):
        np.testing.assert_array_equal(found["x"], part)
        np.testing.assert_array_equal(found["n"], part[:, 0])


def test_an_output_of_other_rows_cannot_be_split() -> None:
    assert split({"x": np.zeros((3, 2)), "y": np.zeros(4)}, [1, 2]) is None
    assert split({"x": np.float32(1).reshape(())}, [1]) is None


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ([1.0, np.nan], [1.0000001, np.nan], True),
        ([1.0], [1.1], False),
        ([1.0], [1.0, 1.0], False),
        ([1], [1], True),
        ([1], [2], False),
        (["a"], ["a"], True),
        (["a"], ["b"], False),
    ],
)
def test_runs_are_alike_up_to_rounding(left: list[object], right: list[object], same: bool) -> None:
    dtype = object if isinstance(left[0], str) else None
    assert alike({"y": np.array(left, dtype)}, {"y": np.array(right, dtype)}) is same
