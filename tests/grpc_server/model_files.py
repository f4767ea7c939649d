"""ONNX files made on the spot for the server's tests; what each computes is easy to check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 10
HELD = "held"
"""The name of the graph whose runs tests may hold."""

ELEMENT_TYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}


def _model(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: list[Any] | None = None,
    *,
    name: str = "g",
) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs, weights or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


def _tensor(name: str, dtype: str, shape: list[int | str]) -> Any:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], shape)


def held(number: float) -> bytes:
    """`y = x + number`, whose runs `held_runs.holding_runs` holds."""
    return plus(number, name=HELD)


def plus(number: float, features: int = 4, *, name: str = "g") -> bytes:
    """`y = x + number`, so that the answer says which file gave it."""
    weight = numpy_helper.from_array(np.array(number, np.float32), "number")
    return _model(
        [helper.make_node("Add", ["x", "number"], ["y"])],
        [_tensor("x", "float32", ["rows", features])],
        [_tensor("y", "float32", ["rows", features])],
        [weight],
        name=name,
    )


def widening(times: int, features: int = 4) -> bytes:
    """`y` is `x`, so many times in each row."""
    repeats = numpy_helper.from_array(np.array([1, times], np.int64), "repeats")
    return _model(
        [helper.make_node("Tile", ["x", "repeats"], ["y"])],
        [_tensor("x", "float32", ["rows", features])],
        [_tensor("y", "float32", ["rows", features * times])],
        [repeats],
    )


def identity(dtype: str, shape: list[int | str]) -> bytes:
    """`y = x` of any dtype."""
    return _model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [_tensor("x", dtype, shape)],
        [_tensor("y", dtype, shape)],
    )


def sum_and_difference() -> bytes:
    """Two inputs of int64 with free rows that must agree, two outputs."""
    names = [_tensor(name, "int64", [f"rows_{name}", 3]) for name in ("a", "b")]
    return _model(
        [
            helper.make_node("Concat", ["a", "b"], ["both"], axis=1),
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        names,
        [_tensor(name, "int64", ["n", size]) for name, size in (("sum", 3), ("difference", 3), ("both", 6))],
    )


def slow(turns: int = 60, size: int = 700) -> bytes:
    """`y = x + 1` after a chain of matrix products that takes a good second of one core."""
    # every product is as large as the one before it: denormals would take a hundred times as long
    matrix = numpy_helper.from_array(np.full((size, size), 1 / size, np.float32), "matrix")
    one = numpy_helper.from_array(np.array(1, np.float32), "one")
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    # the chain begins at the input, or it would be worked out once and for all at load
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["start"], keepdims=0),
        helper.make_node("Add", ["matrix", "start"], ["m0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"m{turn}", "matrix"], [f"m{turn + 1}"]) for turn in range(turns)]
    nodes += [
        helper.make_node("ReduceSum", [f"m{turns}"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "one"], ["more"]),
        helper.make_node("Add", ["more", "nothing"], ["y"]),
    ]
    shape: list[int | str] = ["rows", 4]
    return _model(
        nodes, [_tensor("x", "float32", shape)], [_tensor("y", "float32", shape)], [matrix, one, zero]
    )


ENDLESS = 2.0**28
"""An input that keeps `as_long_as_asked` running far longer than any test waits."""


def as_long_as_asked() -> bytes:
    """`y = x`, after as many turns of a loop as the largest element says."""
    counting = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes_on"]), helper.make_node("Identity", ["n"], ["more"])],
        "turn",
        [_tensor("turn", "int64", []), _tensor("going", "bool", []), _tensor("n", "int64", [])],
        [_tensor("goes_on", "bool", []), _tensor("more", "int64", [])],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    nothing = numpy_helper.from_array(np.array(0, np.int64), "nothing")
    return _model(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
            helper.make_node("Loop", ["turns", "yes", "nothing"], ["counted"], body=counting),
            helper.make_node("Cast", ["counted"], ["zero"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "zero"], ["y"]),
        ],
        [_tensor("x", "float32", ["rows", 4])],
        [_tensor("y", "float32", ["rows", 4])],
        [yes, nothing],
    )


def digits_classifier(seed: int = 0) -> bytes:
    """What the trainer exports: StandardScaler and SGDClassifier on 64 features, zipmap off."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_digits(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(), SGDClassifier(loss="log_loss", random_state=seed, max_iter=20, tol=None)
    )
    pipeline.fit(rows, labels)
    exported = to_onnx(
        pipeline,
        rows[:1].astype(np.float32),
        options={"zipmap": False},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )
    return bytes(exported.SerializeToString())


def lookup(size: int = 10) -> bytes:
    """`y = 100 * x`, looked up in a table: an x beyond it makes the run fail, whoever shares it."""
    table = numpy_helper.from_array(np.arange(size, dtype=np.float32) * 100, "table")
    return _model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [_tensor("x", "int64", ["rows"])],
        [_tensor("y", "float32", ["rows"])],
        [table],
    )


def less_the_mean() -> bytes:
    """`y = x - mean(x)` over the rows, which so touch each other, and the mean itself, which has no rows."""
    return _model(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=0),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [_tensor("x", "float32", ["rows", 4])],
        [_tensor("y", "float32", ["rows", 4]), _tensor("mean", "float32", [4])],
    )


def above(limit: float) -> bytes:
    """Whether each x is above a limit, as a label, and by how much, as a score."""
    return _model(
        [
            helper.make_node("Sub", ["x", "limit"], ["score"]),
            helper.make_node("Greater", ["x", "limit"], ["is_above"]),
            helper.make_node("Cast", ["is_above"], ["label"], to=TensorProto.INT64),
        ],
        [_tensor("x", "float32", ["rows"])],
        [_tensor("label", "int64", ["rows"]), _tensor("score", "float32", ["rows"])],
        [numpy_helper.from_array(np.array(limit, np.float32), "limit")],
    )
