from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from ferryline.model_runtime.facts import read_facts
from ferryline.registry.documents import Role
from ferryline.registry.errors import RefusedError
from tests.onnx_models import linear_classifier


def test_the_facts_of_a_classifier() -> None:
    facts = read_facts(linear_classifier(features=4, classes=3))
    assert (facts.opset, facts.ir_version, facts.classes) == (17, 8, None)
    assert [(spec.name, spec.dtype, spec.shape) for spec in facts.inputs] == [("input", "float32", (-1, 4))]
    assert [(spec.name, spec.shape, spec.role) for spec in facts.outputs] == [
        ("label", (-1,), Role.LABEL),
        ("probabilities", (-1, 3), Role.PROBABILITY),
    ]


@pytest.mark.parametrize(
    "properties",
    [
        {"ferryline.role.probabilities": "score", "ferryline.classes": '["a", "b", "c"]'},
        {"modelferry.role.probabilities": "score", "modelferry.classes": '["a", "b", "c"]'},
        {
            "ferryline.role.probabilities": "score",
            "modelferry.role.probabilities": "probability",
            "modelferry.classes": '["a", "b", "c"]',
        },
    ],
    ids=["now", "under the former name", "the new one wins"],
)
def test_stated_roles_and_classes_are_taken(properties: dict[str, str]) -> None:
    model = onnx.load_model_from_string(linear_classifier())
    helper.set_model_props(model, properties)
    facts = read_facts(model.SerializeToString())
    assert facts.classes == ("a", "b", "c")
    assert facts.outputs[1].role is Role.SCORE


@pytest.mark.parametrize(
    "properties",
    [{"ferryline.role.label": "oracle"}, {"ferryline.classes": "a,b"}, {"ferryline.classes": "[[1]]"}],
)
def test_wrong_statements_are_refused(properties: dict[str, str]) -> None:
    model = onnx.load_model_from_string(linear_classifier())
    helper.set_model_props(model, properties)
    with pytest.raises(RefusedError) as refusal:
        read_facts(model.SerializeToString())
    assert refusal.value.gate == "contract"


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x00" * 100, b"\x08\x08"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedError) as refusal:
        read_facts(data)
    assert refusal.value.gate == "parse"


@pytest.mark.parametrize("element_type", [55, 121])
def test_an_element_type_of_no_meaning_is_refused(element_type: int) -> None:
    model = onnx.load_model_from_string(linear_classifier())
    model.graph.output[0].type.tensor_type.elem_type = element_type
    with pytest.raises(RefusedError) as refusal:
        read_facts(model.SerializeToString())
    assert refusal.value.gate == "parse"


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"gate 'parse'.*unicode"):
        read_facts(linear_classifier().replace(b"label", b"la\xa9el"))


def test_class_labels_that_are_not_utf8_are_refused() -> None:
    model = onnx.load_model_from_string(linear_classifier())
    model.graph.node.append(
        helper.make_node("TreeEnsembleClassifier", ["input"], ["x"], classlabels_strings=[b"\xff"])
    )
    with pytest.raises(RefusedError, match="gate 'parse'"):
        read_facts(model.SerializeToString())


def test_a_sequence_of_maps_is_refused_with_the_remedy() -> None:
    value = onnx.ValueInfoProto(name="probabilities")
    value.type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
    graph = helper.make_graph([], "g", [], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(RefusedError, match="zipmap=False"):
        read_facts(model.SerializeToString())
