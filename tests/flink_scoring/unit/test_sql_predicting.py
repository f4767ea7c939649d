from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from ferryline.flink_scoring.sql.columns import read_columns
from ferryline.flink_scoring.sql.config import FunctionSpec
from ferryline.flink_scoring.sql.planning import Plan, plan_function
from ferryline.flink_scoring.sql.predicting import Predictions, predict
from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.documents import Role
from tests.flink_scoring.sql_models import columns_model, facts, sum_model, table_model, tensor

ROWS = 5


class Counted:
    """A real session that counts its runs."""

    def __init__(self, data: bytes, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(data)
        self._session = OnnxSession(folder / "model.onnx")
        self.runs = 0

    def run(
        self, feeds: Mapping[str, np.ndarray[Any, Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray[Any, Any]]:
        self.runs += 1
        return self._session.run(feeds, outputs)


def planned(data: bytes, **said: object) -> Plan:
    return plan_function("P", FunctionSpec.model_validate({"model": "m", **said}), read_facts(data))


def ask(plan: Plan, session: Any, *given: object, nan_allowed: bool = False) -> Predictions:
    columns = read_columns(plan.signature.arguments, given)
    return predict(plan, session, columns, nan_allowed=nan_allowed)


def answers(found: Predictions, number: int = 0) -> list[object]:
    """What SQL gets: NULL where a row is not scored."""
    values = found.fields[number].tolist() if found.scored.any() else [None] * len(found.scored)
    return [value if scored else None for value, scored in zip(values, found.scored, strict=True)]


def test_columns_become_one_matrix_and_one_run(tmp_path: Path) -> None:
    data = sum_model(3)
    session, plan = Counted(data, tmp_path), planned(data)
    ordered = planned(data, arguments=["x_2", "x_0", "x_1"])
    first, second = pd.Series([1.0, 2.0]), pd.Series([10.0, 20.0])
    assert answers(ask(plan, session, first, second, 0.5)) == [11.5, 22.5]
    assert answers(ask(ordered, session, first, second, Decimal("0.5"))) == [11.5, 22.5]
    assert session.runs == 2


def test_null_and_nan_refuse_their_row_alone_or_reach_the_model(tmp_path: Path) -> None:
    data = sum_model(2)
    session, plan = Counted(data, tmp_path), planned(data, arguments=["a", "b"])
    a, b = pd.Series([1.0, np.nan, 3.0, 4.0]), pd.Series([1.0, 1.0, np.nan, 1.0])
    found = ask(plan, session, a, b)
    assert answers(found) == [2.0, None, None, 5.0]
    assert found.reasons == {"a is NULL or NaN": 1, "b is NULL or NaN": 1}
    given_on = ask(plan, session, a, b, nan_allowed=True)
    assert given_on.scored.all()
    assert np.isnan(given_on.fields[0]).tolist() == [False, True, True, False]
    assert answers(ask(plan, session, a, None)) == [None] * 4
    assert session.runs == 2


def test_a_number_beyond_the_tensors_floats_is_its_largest_and_an_infinite_one_stays(tmp_path: Path) -> None:
    data = sum_model(1)
    numbers = pd.Series([1e300, -1e300, np.inf, 1.0])
    found = ask(planned(data), Counted(data, tmp_path), numbers)
    largest = float(np.finfo(np.float32).max)
    assert answers(found) == [largest, -largest, np.inf, 1.0]


def test_inputs_of_every_kind_and_outputs_of_every_kind(tmp_path: Path) -> None:
    data = columns_model()
    session = Counted(data, tmp_path)
    plan = planned(data, returns=["price", "where", "both"])
    age = pd.Series([30.0, 40.0, 50.0, 60.0])
    visits = pd.Series([1.0, 2.0, np.nan, 2.0**40])  # as Arrow gives whole numbers beside a NULL
    town = pd.Series(["Ulm", None, "Köln", "Bonn"])
    member = pd.Series([True, False, True, False])
    found = ask(plan, session, age, visits, town, member)
    assert answers(found) == [130.0, None, None, None]
    assert answers(found, 1) == ["Ulm", None, None, None]
    assert found.fields[2][0].tolist() == [130.0, 1.0]
    assert found.reasons == {"visits is NULL": 1, "town is NULL": 1, "visits is beyond int32": 1}
    assert session.runs == 1


def test_an_array_column_feeds_a_matrix(tmp_path: Path) -> None:
    data = sum_model(3)
    session, plan = Counted(data, tmp_path), planned(data, shape="array")
    rows = pd.Series([np.array([1.0, 2.0, 3.0]), None, np.array([1.0]), np.array([1.0, np.nan, 1.0])])
    found = ask(plan, session, rows)
    assert answers(found) == [6.0, None, None, None]
    assert found.reasons == {
        "x is NULL": 1,
        "x has 1 elements, the model takes 3": 1,
        "x is NULL or NaN": 1,
    }
    assert session.runs == 1


def test_rows_of_different_lengths_run_once_for_each_length() -> None:
    class Widths:
        runs: ClassVar[list[tuple[int, ...]]] = []

        def run(self, feeds: Mapping[str, Any], outputs: object = None) -> dict[str, Any]:
            self.runs.append(feeds["x"].shape)
            return {"score": feeds["x"].sum(axis=1, keepdims=True)}

    plan = plan_function("P", FunctionSpec(model="m"), facts([tensor("x", shape=(-1, -1))]))
    rows = pd.Series([np.array([1.0]), np.array([1.0, 1.0]), np.array([2.0]), None])
    assert answers(ask(plan, Widths(), rows)) == [1.0, 2.0, 2.0, None]
    assert sorted(Widths.runs) == [(1, 2), (2, 1)]


def test_null_elements_refuse_their_row(tmp_path: Path) -> None:
    contract = facts([tensor("x", "int64", (-1, 2))], [tensor("y", "int64", (-1, 2))])
    plan = plan_function("P", FunctionSpec(model="m", shape="array"), contract)  # type: ignore[arg-type]

    class Same:
        def run(self, feeds: Mapping[str, Any], outputs: object = None) -> dict[str, Any]:
            return {"y": feeds["x"]}

    rows = pd.Series([np.array([1.0, 2.0]), np.array([1.0, np.nan]), np.array([2.0**60, 1.0])])
    found = ask(plan, Same(), rows)
    assert found.scored.tolist() == [True, False, False]
    assert found.fields[0][0].tolist() == [1, 2]


def test_rows_that_the_model_refuses_are_found_in_few_runs(tmp_path: Path) -> None:
    data = table_model()
    session, plan = Counted(data, tmp_path), planned(data)
    values = np.arange(1000.0) % 10
    values[[100, 700]] = 99
    found = ask(plan, session, pd.Series(values))
    assert np.flatnonzero(~found.scored).tolist() == [100, 700]
    assert [answers(found)[row] for row in (3, 9, 999)] == [30, 90, 90]
    assert sum(found.reasons.values()) == 2
    assert all("the model refuses it" in reason for reason in found.reasons)
    assert session.runs < 45  # and not a thousand


def test_a_label_says_the_class_it_stands_for() -> None:
    class Places:
        def run(self, feeds: Mapping[str, Any], outputs: object = None) -> dict[str, Any]:
            return {"label": feeds["x"].astype(np.int64).ravel()}

    contract = facts([tensor("x")], [tensor("label", "int64", (-1,), role=Role.LABEL)], ("cat", "dog"))
    plan = plan_function("P", FunctionSpec(model="m"), contract)
    assert answers(ask(plan, Places(), pd.Series([1.0, 0.0, 7.0]))) == ["dog", "cat", None]


def test_a_batch_without_rows_asks_nobody(tmp_path: Path) -> None:
    data = sum_model(2)
    session = Counted(data, tmp_path)
    for said in ({}, {"shape": "array"}):
        plan = planned(data, **said)
        empty = [pd.Series([], dtype=np.float64 if not said else object)] * len(plan.signature.arguments)
        assert not len(ask(plan, session, *empty).scored)
    assert session.runs == 0


def test_whole_numbers_that_a_neighbours_null_made_inexact_are_not_guessed(tmp_path: Path) -> None:
    contract = facts([tensor("x", "int64")], [tensor("y", "int64")])
    plan = plan_function("P", FunctionSpec(model="m"), contract)

    class Same:
        def run(self, feeds: Mapping[str, Any], outputs: object = None) -> dict[str, Any]:
            return {"y": feeds["x"]}

    big = 2**60 + 1
    assert answers(ask(plan, Same(), pd.Series([big, 5]))) == [big, 5]
    found = ask(plan, Same(), pd.Series([float(big), 5.0, np.nan]))
    assert answers(found) == [None, 5, None]


@pytest.fixture(scope="module")
def summing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Counted]:
    data = sum_model(3)
    return planned(data), Counted(data, tmp_path_factory.mktemp("model"))


@given(
    matrix=st_numpy.arrays(
        np.float64, st.tuples(st.integers(0, 30), st.just(3)), elements=st.floats(-1e3, 1e3) | st.just(np.nan)
    )
)
def test_a_batch_gives_what_its_rows_give_alone(matrix: Any, summing: tuple[Plan, Counted]) -> None:
    def score(rows: Any) -> list[object]:
        return answers(ask(*summing, *(pd.Series(rows[:, column]) for column in range(3))))

    alone = [score(matrix[row : row + 1])[0] for row in range(len(matrix))]
    together = score(matrix)
    assert [value is None for value in together] == [bool(np.isnan(row).any()) for row in matrix]
    whole, single = (np.array(found, dtype=np.float64) for found in (together, alone))
    assert np.allclose(whole, single, rtol=1e-5, atol=1e-3, equal_nan=True)
