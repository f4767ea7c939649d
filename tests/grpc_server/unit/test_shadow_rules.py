"""Shadows without models: what may be said of them, what is compared how, and what may wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ferryline.grpc_server.datatypes import held_bytes
from ferryline.grpc_server.settings import load_server_settings
from ferryline.grpc_server.shadowing.backlog import Backlog
from ferryline.grpc_server.shadowing.comparison import Distance, Failure, Labels, compare, is_measured
from ferryline.grpc_server.shadowing.counters import BOUNDS, OutputCounters, cumulated
from ferryline.grpc_server.shadowing.policy import BacklogLimits, ShadowPolicy, parse_shadows
from ferryline.registry.documents import Dtype, Role, TensorSpec
from ferryline.registry.errors import UsageError

Floats = npt.NDArray[np.float64]
ANY_FLOATS = arrays.arrays(np.float64, st.tuples(st.integers(0, 3), st.integers(0, 3)))


# --- what operators may say ---------------------------------------------------------------------------


def test_a_share_is_a_number_and_all_where_none_is_said() -> None:
    assert parse_shadows(["digits:staging", "spam:next=0.25", "c:d=1"]) == (
        ShadowPolicy("digits", "staging", 1.0),
        ShadowPolicy("spam", "next", 0.25),
        ShadowPolicy("c", "d", 1.0),
    )


@pytest.mark.parametrize(
    "share", ["", "0", "0.0", "1.01", "-0.5", "nan", "inf", "1e-3", "1_0", "\u0660.\u0665", "10%", "."]
)
def test_other_shares_are_refused(share: str) -> None:
    with pytest.raises(UsageError, match="above 0 and up to 1"):
        parse_shadows([f"digits:staging={share}"])


@pytest.mark.parametrize("text", ["digits", "digits=0.5", "digits@7", "Digits:staging", "digits:", ""])
def test_a_shadow_names_a_model_and_a_channel(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shadows([text])


def test_a_model_has_one_shadow() -> None:
    with pytest.raises(UsageError, match=r"two shadows, digits:a and digits:b"):
        parse_shadows(["digits:a", "digits:b=0.1"])


def test_the_settings_take_what_stands_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_SERVER_SHADOWS", "digits:staging=0.5, spam:next")
    found = load_server_settings(server_models=("digits", "spam:blue"))
    assert [str(policy) for policy in found.shadows()] == ["digits:staging", "spam:next"]


@pytest.mark.parametrize(
    ("models", "more", "reason"),
    [
        (("spam",), {}, "not among those to serve"),
        (("digits",), {"server_shadows": ("digits:production",)}, "answers the requests itself"),
        (("digits:staging", "digits"), {}, "answers the requests itself"),
        ((), {"server_all": True, "server_all_channel": "staging"}, "answers the requests itself"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    models: tuple[str, ...], more: dict[str, Any], reason: str
) -> None:
    values: dict[str, Any] = {"server_shadows": ("digits:staging",), **more}
    with pytest.raises(UsageError, match=reason):
        load_server_settings(server_models=models, **values).shadows()


@pytest.mark.parametrize(
    ("models", "more"),
    [
        (("digits", "digits:staging"), {}),
        (("digits",), {"server_all": True, "server_all_channel": "staging"}),
        ((), {"server_all": True}),
        ((), {"server_model_control": "explicit"}),
    ],
)
def test_a_shadow_may_be_served_as_well_or_its_model_come_later(
    models: tuple[str, ...], more: dict[str, Any]
) -> None:
    found = load_server_settings(server_models=models, server_shadows=("digits:staging",), **more)
    assert [str(policy) for policy in found.shadows()] == ["digits:staging"]


# --- what is compared how -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "role", "measured"),
    [
        ("int64", Role.LABEL, False),
        ("string", Role.LABEL, False),
        ("float32", Role.LABEL, False),
        ("int64", None, False),
        ("string", Role.SCORE, False),
        ("float32", Role.PROBABILITY, True),
        ("float32", Role.SCORE, True),
        ("int8", Role.SCORE, True),
        ("float16", None, True),
    ],
)
def test_the_role_says_how_an_output_is_compared(dtype: Dtype, role: Role | None, measured: bool) -> None:
    assert is_measured(TensorSpec(name="y", dtype=dtype, shape=(-1,), role=role)) is measured


def test_labels_agree_or_do_not() -> None:
    assert compare(np.array([1, 2, 3]), np.array([1, 0, 3]), measured=False) == Labels(3, 2)
    left, right = np.array([["cat"], ["dog"]], object), np.array([["cat"], ["cat"]], object)
    assert compare(left, right, measured=False) == Labels(2, 1)


@given(ANY_FLOATS)
def test_an_output_is_never_off_itself(array: Floats) -> None:
    assert compare(array, array.copy(), measured=True) == Distance(0.0)


@given(st.data(), arrays.array_shapes(max_dims=2, min_side=0))
def test_the_largest_difference_is_what_plain_arithmetic_says(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    numbers = st.floats(-1e300, 1e300)
    left, right = (data.draw(arrays.arrays(np.float64, shape, elements=numbers)) for _ in range(2))
    expected = max((abs(a - b) for a, b in zip(left.flat, right.flat, strict=True)), default=0.0)
    assert compare(left, right, measured=True) == Distance(expected)


@given(ANY_FLOATS, st.data())
def test_what_is_finite_on_one_side_only_is_said_to_be_so(array: Floats, data: st.DataObject) -> None:
    if not np.isfinite(array).any():
        return
    index = data.draw(st.sampled_from([at for at in range(array.size) if np.isfinite(array.flat[at])]))
    other = array.copy()
    other.flat[index] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    assert compare(array, other, measured=True) is Failure.NON_FINITE
    assert compare(other, array, measured=True) is Failure.NON_FINITE


def test_infinities_of_other_signs_differ() -> None:
    assert compare(np.array([np.inf]), np.array([-np.inf]), measured=True) is Failure.NON_FINITE
    assert compare(np.array([np.inf, 1.0]), np.array([np.inf, 3.0]), measured=True) == Distance(2.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_largest_numbers_do_not_overflow(dtype: str) -> None:
    largest = np.finfo(dtype).max
    verdict = compare(np.array([largest]), np.array([-largest]), measured=True)
    assert isinstance(verdict, Distance)
    assert math.isfinite(verdict.largest)
    assert verdict.largest >= float(largest)


def test_unsigned_numbers_and_truths_are_measured_too() -> None:
    assert compare(np.array([1], np.uint8), np.array([3], np.uint8), measured=True) == Distance(2.0)
    assert compare(np.array([True]), np.array([False]), measured=True) == Distance(1.0)


def test_other_types_and_shapes_are_no_numbers_to_compare() -> None:
    assert compare(np.zeros(2), np.zeros(2, np.float32), measured=True) is Failure.DTYPE
    assert compare(np.zeros(2), np.zeros((2, 1)), measured=True) is Failure.SHAPE


# --- what is counted ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6)))
def test_the_histogram_counts_each_difference_at_or_below_its_bound(largest: list[float]) -> None:
    counters = OutputCounters()
    for each in largest:
        counters.count(Distance(each))
    expected = [sum(each <= bound for each in largest) for bound in (*BOUNDS, math.inf)]
    assert cumulated(counters.distances) == expected
    assert counters.largest == max(largest, default=0.0)


# --- what may wait ------------------------------------------------------------------------------------


@dataclass
class Item:
    size: int


@given(
    st.integers(1, 5),
    st.integers(1, 50),
    st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=60),
)
def test_the_backlog_is_what_a_plain_queue_within_the_bounds_would_be(
    requests: int, size: int, steps: list[int | None]
) -> None:
    backlog: Backlog[Item] = Backlog(BacklogLimits(requests, size))
    model: list[Item] = []
    for step in steps:
        if step is None:
            assert backlog.take() is (model.pop(0) if model else None)
        else:
            item = Item(step)
            fits = len(model) < requests and sum(each.size for each in model) + step <= size
            assert backlog.put(item) is fits
            model += [item] if fits else []
        assert (len(backlog), backlog.size) == (len(model), sum(each.size for each in model))


def test_slices_count_as_what_they_keep() -> None:
    whole = np.zeros((100, 10))
    assert held_bytes([whole[:1]]) == whole.nbytes
    assert held_bytes([np.frombuffer(b"12345678", np.float64).reshape(1, 1)]) == 8
    assert held_bytes([np.array(["a" * 1000], object)]) > 1000
