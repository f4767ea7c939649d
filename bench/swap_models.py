"""Versions of two models that all answer differently, so that each reply tells which of them gave it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from bench.grpc_unary import FEATURES, MODEL, digits_model
from ferryline.protos.grpc_service_pb2 import ModelInferRequest
from ferryline.trainer.export import INPUT

WIDTH = 4000
"""A square matrix of so many float32 has 64 MB."""


def digits_versions(count: int) -> Iterator[bytes]:
    """The digits classifier; each version leans a little more towards the first class."""
    model = onnx.load_from_string(digits_model())
    classifier = {attribute.name: attribute.floats for attribute in model.graph.node[0].attribute}
    intercepts, weights = classifier["intercepts"], np.array(classifier["coefficients"])
    scores = weights.reshape(-1, FEATURES) @ average_row()[0] + intercepts
    begin = np.array(intercepts) - scores
    intercepts[1] = begin[1]  # two classes that the average row is undecided between
    for number in range(count):
        intercepts[0] = begin[0] + 0.005 * number - 2.5
        yield model.SerializeToString()


def wide_versions(count: int) -> Iterator[bytes]:
    """A perceptron with 64 MB of weights; each version adds another number to its output."""
    draw = np.random.default_rng(0)
    weights = {
        "narrow": draw.normal(0, 0.1, (FEATURES, WIDTH)),
        "wide": draw.normal(0, 0.01, (WIDTH, WIDTH)),
        "last": draw.normal(0, 0.01, (WIDTH, 1)),
    }
    kept = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    nodes = [
        helper.make_node("MatMul", [INPUT, "narrow"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "wide"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "last"], ["e"]),
        helper.make_node("Add", ["e", "number"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", FEATURES])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])]
    for version in range(count):
        number = numpy_helper.from_array(np.array([version], np.float32), "number")
        graph = helper.make_graph(nodes, "wide", inputs, outputs, [*kept, number])
        opset = [helper.make_opsetid("", 17)]
        yield helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def average_row() -> npt.NDArray[np.float32]:
    """A row of which no class is sure, so that the smallest change shows."""
    rows, _ = load_digits(return_X_y=True)
    average: npt.NDArray[np.float32] = rows.mean(axis=0, keepdims=True).astype(np.float32)
    return average


def average_request() -> bytes:
    """That row as a request."""
    request = ModelInferRequest(model_name=MODEL)
    request.inputs.add(name=INPUT, datatype="FP32", shape=[1, FEATURES])
    request.raw_input_contents.append(average_row().tobytes())
    return request.SerializeToString()
