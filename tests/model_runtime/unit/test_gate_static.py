"""Every static gate on models built for it, without a process."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ferryline.model_runtime.gate import GateLimits, static_checks
from ferryline.model_runtime.gate.limits import STANDARD_DOMAINS
from ferryline.model_runtime.gate.shapes import check_declared_values
from ferryline.model_runtime.gate.tensor_sizes import bits_of, bytes_of, stored_elements
from ferryline.registry.errors import RefusedError
from tests import hostile_models as hostile
from tests.grpc_server import model_files
from tests.onnx_models import linear_classifier

LIMITS = GateLimits()
STATIC_GATES = {"nodes", "external-data", "operators", "functions", "control-flow", "sparse", "shapes"}
# what needs seconds, or another gate first, is left to the integration tests
STATIC = {
    name: row
    for name, row in hostile.HOSTILE.items()
    if row.gates <= STATIC_GATES
    and not name.startswith(("crowd", "too many"))
    and name != "shape hidden by arithmetic"
}


def gate_of(data: bytes, limits: GateLimits = LIMITS) -> str | None:
    try:
        static_checks(ModelProto.FromString(data), limits)
    except RefusedError as error:
        return error.gate
    return None


@pytest.mark.parametrize("name", STATIC)
def test_a_hostile_model_is_refused_by_reading_it(name: str) -> None:
    row = hostile.HOSTILE[name]
    if name == "function chain, functions allowed":
        row = replace(row, make=lambda: hostile.function_chain(100))
    assert gate_of(row.make(), row.limits) in row.gates


def test_every_static_gate_has_hostile_models() -> None:
    assert {gate for row in STATIC.values() for gate in row.gates} >= STATIC_GATES


@pytest.mark.parametrize(
    "data",
    [
        linear_classifier(64, 10),
        hostile.harmless().SerializeToString(),
        hostile.division(1, 0),
        hostile.not_a_number(),
        model_files.plus(1),
        model_files.identity("string", ["rows", 2]),
        model_files.sum_and_difference(),
    ],
    ids=["linear", "add", "division", "nan", "plus", "strings", "two outputs"],
)
def test_ordinary_models_pass(data: bytes) -> None:
    assert gate_of(data) is None


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        (hostile.loop(10), {"allow_control_flow": True}),
        (hostile.branches(3), {"allow_control_flow": True}),
        (hostile.graph_where_none_belongs(), {"allow_control_flow": True}),
        (hostile.function_chain(5), {"allow_functions": True}),
        (hostile.function_tree(5), {"allow_functions": True}),
        (hostile.sparse_initializer(16), {"allow_sparse": True}),
        (hostile.of_domain("com.microsoft"), {"domains": (*STANDARD_DOMAINS, "com.microsoft")}),
        (hostile.many_nodes(20), {}),
        (hostile.constant_of_shape(2**26), {}),
        (hostile.constant_of_shape(2**30), {"max_tensor_bytes": 2**32}),
    ],
)
def test_what_is_asked_for_is_allowed(data: bytes, allowed: dict[str, object]) -> None:
    assert gate_of(data, replace(LIMITS, **allowed)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "limit", "gate"),
    [
        (hostile.many_nodes(20), {"max_nodes": 20}, "nodes"),
        (hostile.branches(5), {"allow_control_flow": True, "max_depth": 4}, "nodes"),
        (hostile.function_chain(6), {"allow_functions": True, "max_depth": 5}, "functions"),
        (hostile.function_tree(5), {"allow_functions": True, "max_nodes": 31}, "nodes"),
        (hostile.constant_of_shape(2**26 + 1), {}, "shapes"),
        (hostile.crowd(5, 400), {"max_nodes": 40}, "nodes"),
        (hostile.crowd(13, 400), {"max_nodes": 40}, "nodes"),
        (hostile.crowd_of_attributes(400), {"max_nodes": 40}, "nodes"),
        (hostile.crowd_outside(25, 400), {"max_nodes": 40}, "nodes"),
        (hostile.crowd_outside(14, 400), {"max_nodes": 40}, "nodes"),
    ],
)
def test_limits_are_exact(data: bytes, limit: dict[str, object], gate: str) -> None:
    assert gate_of(data, replace(LIMITS, **limit)) == gate  # type: ignore[arg-type]


def test_the_gates_come_in_order() -> None:
    model = ModelProto.FromString(hostile.loop())
    model.graph.initializer.append(hostile.elsewhere())
    model.graph.sparse_initializer.append(
        ModelProto.FromString(hostile.sparse_initializer()).graph.sparse_initializer[0]
    )
    assert gate_of(model.SerializeToString()) == "external-data"
    model.graph.initializer.pop()
    assert gate_of(model.SerializeToString()) == "control-flow"
    model.graph.node[0].domain = "evil"
    assert gate_of(model.SerializeToString()) == "operators"


def test_all_inputs_together_have_a_limit() -> None:
    model = hostile.harmless()
    model.graph.input.extend(hostile.value(f"i{index}", [None, 2**24]) for index in range(5))
    with pytest.raises(RefusedError, match="all inputs together"):
        check_declared_values(model, LIMITS)


def test_a_text_that_is_not_utf8_is_damage() -> None:
    data = hostile.harmless().SerializeToString().replace(b"Add", b"A\xffd")
    assert gate_of(data) == "parse"


@pytest.mark.parametrize(
    ("tensor", "elements"),
    [
        (numpy_helper.from_array(np.zeros((3, 4), np.float32)), 12),
        (helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0]), 2),
        (helper.make_tensor("t", TensorProto.STRING, [3], ["a", "b", "c"]), 3),
        (helper.make_tensor("t", TensorProto.BOOL, [5], [True] * 5), 5),
        (helper.make_tensor("t", TensorProto.FLOAT16, [5], [1.0] * 5), 5),
        (helper.make_tensor("t", TensorProto.INT4, [5], [1] * 5), 6),
        (helper.make_tensor("t", TensorProto.COMPLEX64, [1], [1 + 2j]), 2),
        (TensorProto(data_type=TensorProto.INT64, dims=[10]), 0),
    ],
)
def test_stored_elements_are_counted(tensor: TensorProto, elements: int) -> None:
    assert stored_elements(tensor) == elements


def test_every_element_type_has_a_size() -> None:
    for name, number in TensorProto.DataType.items():
        assert bits_of(number) in {2, 4, 8, 16, 32, 64, 128, 256}, name
    assert bytes_of(TensorProto.INT4, [3]) == 2
    assert bytes_of(TensorProto.DOUBLE, []) == 8
    assert bits_of(12345) == 8


def test_reading_a_model_takes_few_steps() -> None:
    model = ModelProto.FromString(linear_classifier(64, 10))
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: calls.append(event))
    try:
        static_checks(model, LIMITS)
    finally:
        sys.setprofile(None)
    assert len(calls) < 5_000
