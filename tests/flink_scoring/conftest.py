"""Models small enough to be read, whose answers tell which of them was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest
from onnx import TensorProto, helper, numpy_helper

from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.served import ServedModel
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import utc_now
from ferryline.registry.stores.memory import MemoryStore
from ferryline.streams.pipeline import Pipeline, parse_pipeline

DIGITS = """
[pipeline]
name = "{name}"
model = "{name}"
[source]
topic = "{name}.in"
event_time = "ts"
max_record_bytes = 1048576
[source.features]
field = "x"
kind = "array"
size = 64
minimum = 0
maximum = 16
[source.label]
field = "actual_y"
classes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
[scoring]
topic = "{name}.out"
checkpoint_seconds = 1.0
"""


def _finish(
    nodes: list[onnx.NodeProto], *, width: int, outputs: list[onnx.ValueInfoProto], **kept: object
) -> bytes:
    weights = [
        numpy_helper.from_array(value, name) for name, value in kept.items() if isinstance(value, np.ndarray)
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])]
    graph = helper.make_graph(nodes, "made", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    roles = {"ferryline.role.label": "label", "ferryline.role.probabilities": "probability"}
    names = {value.name for value in outputs}
    properties = {key: value for key, value in roles.items() if key.rsplit(".", 1)[1] in names}
    helper.set_model_props(model, properties | {"ferryline.classes": orjson.dumps(kept["classes"]).decode()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def constant_model() -> Callable[..., bytes]:
    """Makes a model that answers class number `answer` to everything."""

    def make(
        answer: int,
        *,
        width: int = 64,
        classes: tuple[object, ...] = tuple(range(10)),
        confidence: float = 2.0,
    ) -> bytes:
        bias = np.zeros(len(classes), np.float32)
        bias[answer] = confidence
        nodes = [
            helper.make_node("MatMul", ["x", "zero"], ["flat"]),
            helper.make_node("Add", ["flat", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        ]
        outputs = [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(classes)]),
        ]
        zero = np.zeros((width, len(classes)), np.float32)
        return _finish(nodes, width=width, outputs=outputs, zero=zero, bias=bias, classes=classes)

    return make


@pytest.fixture(scope="session")
def picky_model() -> bytes:
    """A model that answers with its first feature, and cannot be run where that is above 9."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
        helper.make_node("Cast", ["column"], ["position"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "position"], ["label"], axis=0),
    ]
    outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, [None])]
    return _finish(
        nodes,
        width=64,
        outputs=outputs,
        first=np.array(0, np.int64),
        table=np.arange(10),
        classes=list(range(10)),
    )


@pytest.fixture(scope="session")
def digits_pipeline() -> Callable[[str], Pipeline]:
    """Makes the digits pipeline under another name, with topics of its own."""

    def make(name: str = "digits") -> Pipeline:
        return parse_pipeline(digits_toml(name), where=name)

    return make


def digits_toml(name: str) -> str:
    """The text of a digits pipeline."""
    return DIGITS.format(name=name)


@pytest.fixture(scope="session")
def pipeline_text() -> Callable[[str], str]:
    """The text of a digits pipeline by its name."""
    return digits_toml


@pytest.fixture(scope="module")
def own_settings(_empty_config: Path) -> Iterator[None]:
    """What `_private_folders` says to a test, for a job that the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERRY_CONFIG", str(_empty_config))
        patch.setenv("FERRY_ACTOR", "tester")
        yield


@pytest.fixture
def registry() -> Registry:
    """An empty registry in memory."""
    return Registry(MemoryStore(), actor="tests")


@pytest.fixture
def serve(registry: Registry, tmp_path: Path) -> Callable[..., ServedModel]:
    """Publishes and promotes a file, and loads it as a follower would."""

    def load(data: bytes, model: str = "digits") -> ServedModel:
        manifest = registry.publish(model, data, read_facts(data))
        entry = registry.promote(model, manifest.version)
        path = tmp_path / f"{model}-{manifest.version}.onnx"
        path.write_bytes(data)
        return ServedModel(manifest, entry, OnnxSession(path), utc_now())

    return load
