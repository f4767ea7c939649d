from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ferryline.model_runtime import weights
from ferryline.model_runtime.weights import compare_weights
from ferryline.registry.diff import TensorChange
from ferryline.registry.errors import RefusedError
from tests.onnx_models import linear_classifier


def model(*tensors: TensorProto, coefficients: list[float] | None = None) -> bytes:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    if coefficients is not None:
        nodes.append(
            helper.make_node("LinearClassifier", ["x"], ["z"], name="head", coefficients=coefficients)
        )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(tensors))
    return helper.make_model(graph).SerializeToString()


def tensor(name: str, *values: float) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def only(a: bytes, b: bytes) -> TensorChange:
    (change,) = compare_weights(a, b).tensors
    return change


def test_the_same_weights_differ_in_nothing() -> None:
    found = compare_weights(linear_classifier(), linear_classifier())
    assert (found.tensors, found.unchanged, found.unread) == ((), 2, ())


def test_a_change_has_its_norms_and_its_largest_number() -> None:
    change = only(model(tensor("w", 3, 4)), model(tensor("w", 3, 1)))
    assert (change.name, change.change, change.shape) == ("w", "changed", (2,))
    assert (change.norm_a, change.norm_change, change.largest) == (5.0, 3.0, 3.0)
    assert change.norm_b == pytest.approx(10**0.5)


def test_the_greatest_change_comes_first_after_what_came_or_went() -> None:
    a = model(tensor("small", 1), tensor("great", 1), tensor("old", 1), tensor("shape", 1))
    b = model(tensor("small", 2), tensor("great", 9), tensor("new", 1), tensor("shape", 1, 1))
    found = [(change.name, change.change) for change in compare_weights(a, b).tensors]
    assert set(found[:3]) == {("old", "removed"), ("new", "added"), ("shape", "reshaped")}
    assert found[3:] == [("great", "changed"), ("small", "changed")]


def test_coefficients_in_attributes_are_weights() -> None:
    change = only(model(coefficients=[1.0, 2.0]), model(coefficients=[1.0, 2.5]))
    assert (change.name, change.largest) == ("head.coefficients", 0.5)


def test_numbers_that_are_none_do_no_harm() -> None:
    assert compare_weights(model(tensor("w", np.nan)), model(tensor("w", np.nan))).unchanged == 1
    change = only(model(tensor("w", np.inf, 1)), model(tensor("w", 1, 1)))
    assert (change.norm_a, change.norm_change, change.largest) == (None, None, None)


def lying(**fields: object) -> bytes:
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, raw_data=b"\0" * 8)
    proto.dims.extend([2])
    for name, value in fields.items():
        if name == "dims":
            proto.ClearField("dims")
            proto.dims.extend(value)  # type: ignore[arg-type]
        else:
            setattr(proto, name, value)
    return model(proto)


@pytest.mark.parametrize(
    "fields",
    [
        {"dims": [2**40, 2**20]},
        {"dims": [-1]},
        {"dims": [3]},
        {"data_type": 99},
        {"data_type": TensorProto.STRING},
        {"data_location": TensorProto.EXTERNAL},
    ],
    ids=["huge", "negative", "short", "type", "string", "external"],
)
def test_a_tensor_that_lies_is_not_read(fields: dict[str, object]) -> None:
    found = compare_weights(lying(), lying(**fields))
    assert found.unread == ("w",)
    assert [change.change for change in found.tensors] == ["removed"]


def test_what_is_no_model_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="parse"):
        compare_weights(b"\xff" * 9, linear_classifier())
    monkeypatch.setattr(weights, "LARGEST_COUNT", 1)
    with pytest.raises(RefusedError, match="size"):
        compare_weights(linear_classifier(), linear_classifier())
    monkeypatch.setattr(weights, "LARGEST_FILE", 10)
    with pytest.raises(RefusedError, match="size"):
        compare_weights(linear_classifier(), linear_classifier())


def test_models_are_parsed_and_never_run() -> None:
    unknown = onnx.load_model_from_string(model(tensor("w", 1)))
    unknown.graph.node[0].op_type = "NoSuchOperator"
    assert compare_weights(unknown.SerializeToString(), model(tensor("w", 1))).unchanged == 1
