"""Models of every form that SQL can call, and their contracts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ferryline.registry.documents import ModelFacts, Role, TensorSpec

SUM = TensorProto.FLOAT


def facts(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec] = (),
    classes: tuple[object, ...] | None = None,
) -> ModelFacts:
    """A contract; one score per row unless other outputs are given."""
    given = tuple(outputs) or (TensorSpec(name="score", dtype="float32", shape=(-1, 1), role=Role.SCORE),)
    return ModelFacts(opset=17, ir_version=8, inputs=tuple(inputs), outputs=given, classes=classes)


def tensor(name: str, dtype: str = "float32", shape: tuple[int, ...] = (-1, 1), **more: object) -> TensorSpec:
    return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": shape, **more})


def _finished(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    **weights: object,
) -> bytes:
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "made", inputs, outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def sum_model(width: int = 3, *, factor: float = 1.0, dtype: int = TensorProto.FLOAT) -> bytes:
    """The sum of `width` numbers times `factor`, as `total` [-1, 1]."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    return _finished(
        [helper.make_node("MatMul", ["x", "ones"], ["total"])],
        [helper.make_tensor_value_info("x", dtype, [None, width])],
        [helper.make_tensor_value_info("total", dtype, [None, 1])],
        ones=np.full((width, 1), factor, kind),
    )


def columns_model() -> bytes:
    """Four named inputs of four kinds; gives `price` = age + 100 for members, `town` and `both` [-1, 2]."""
    value = helper.make_tensor_value_info
    return _finished(
        [
            helper.make_node("Cast", ["member"], ["as_number"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["visits"], ["visits_as_number"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["as_number", "hundred"], ["bonus"]),
            helper.make_node("Add", ["age", "bonus"], ["price"]),
            helper.make_node("Identity", ["town"], ["where"]),
            helper.make_node("Concat", ["price", "visits_as_number"], ["both"], axis=1),
        ],
        [
            value("age", TensorProto.FLOAT, [None, 1]),
            value("visits", TensorProto.INT32, [None, 1]),
            value("town", TensorProto.STRING, [None, 1]),
            value("member", TensorProto.BOOL, [None, 1]),
        ],
        [
            value("price", TensorProto.FLOAT, [None, 1]),
            value("where", TensorProto.STRING, [None, 1]),
            value("both", TensorProto.FLOAT, [None, 2]),
        ],
        hundred=np.float32(100),
    )


def table_model() -> bytes:
    """Looks one number up in a table of ten: it cannot be run where a row's number is beyond."""
    return _finished(
        [
            helper.make_node("Cast", ["x"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "place"], ["found"], axis=0),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("found", TensorProto.INT64, [None])],
        table=np.arange(10) * 10,
    )
