"""A first judgement, of a model of our own: what libraries set up at first use, children then share."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, TensorProto, helper

from ferryline.model_runtime.gate.handover import handed_over
from ferryline.model_runtime.gate.judgement import judge
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.model_runtime.memory import release_free_memory
from ferryline.registry.digests import digest_of

# known to every onnx and ONNX Runtime that this project allows
_OPSET, _IR_VERSION = 17, 8


def prime() -> None:
    """Judge a model of one addition; saves each child about 15 ms."""
    data = _model().SerializeToString()
    with handed_over(data, "priming") as file:
        judge(Path(f"/proc/self/fd/{file}"), digest_of(data), None, GateLimits(), lambda _: None)
    release_free_memory()


def _model() -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "priming",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
