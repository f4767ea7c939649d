"""Small real ONNX models for tests: a linear classifier whose outputs tell which one it was."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ferryline.model_runtime.facts import read_facts as inspect_model
from ferryline.registry.documents import GoldenRows, TrainingRecord

OPSET = 17


def linear_classifier(features: int = 4, classes: int = 3, *, bias: float = 0.0, winner: int = 0) -> bytes:
    """A model of `features` numbers whose label is always `winner` and whose scores grow by `bias`."""
    weights = np.zeros((features, classes), dtype=np.float32)
    offsets = np.full(classes, bias, dtype=np.float32)
    offsets[winner] += 1
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "weights"], ["product"]),
            helper.make_node("Add", ["product", "offsets"], ["probabilities"]),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, features])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, classes]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(offsets, "offsets")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def golden_rows(features: int = 4, classes: int = 3, *, bias: float = 0.0, winner: int = 0) -> GoldenRows:
    """The golden rows that `linear_classifier` of the same arguments passes."""
    scores = [bias] * classes
    scores[winner] += 1
    return GoldenRows(
        inputs={"input": [[1.0] * features, [0.0] * features]},
        outputs={"label": [winner, winner], "probabilities": [scores, scores]},
    )


def training(**model: float) -> TrainingRecord:
    """A training record with the golden rows of the model of the same arguments."""
    return TrainingRecord(golden=golden_rows(**model))  # type: ignore[arg-type]


__all__ = ["golden_rows", "inspect_model", "linear_classifier", "training"]
