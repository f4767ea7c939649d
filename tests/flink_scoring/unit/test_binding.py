from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferryline.flink_scoring.binding import ModelBinding, require_fit
from ferryline.registry.documents import ModelFacts, Role, TensorSpec
from ferryline.registry.errors import RefusedError
from ferryline.streams.pipeline import Pipeline, parse_pipeline

INPUT = TensorSpec(name="x", dtype="float32", shape=(-1, 3))
LABEL = TensorSpec(name="label", dtype="int64", shape=(-1,), role=Role.LABEL)
PROBABILITY = TensorSpec(name="p", dtype="float32", shape=(-1, 3), role=Role.PROBABILITY)


def pipeline_of(classes: str) -> Pipeline:
    text = f"""
    [pipeline]
    name = "three"
    model = "three"
    [source]
    topic = "in"
    [source.features]
    field = "x"
    kind = "array"
    size = 3
    [source.label]
    field = "y"
    classes = {classes}
    [scoring]
    topic = "out"
    """
    return parse_pipeline(text, where="here")


NUMBERS = pipeline_of("[0, 1, 2]")


def facts(
    inputs: Sequence[TensorSpec] = (INPUT,),
    outputs: Sequence[TensorSpec] = (LABEL, PROBABILITY),
    classes: tuple[Any, ...] | None = (0, 1, 2),
) -> ModelFacts:
    return ModelFacts(opset=18, ir_version=9, inputs=tuple(inputs), outputs=tuple(outputs), classes=classes)


class Answers:
    """A session that gives what it was told to; the answers of odd models are not worth an ONNX file each."""

    def __init__(self, **outputs: Any) -> None:
        self.fed: dict[str, Any] = {}
        self._outputs = outputs

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        self.fed = dict(feeds)
        return {name: np.asarray(self._outputs[name]) for name in outputs or self._outputs}


ROWS = np.zeros((2, 3))


def predict(model: ModelFacts, pipeline: Pipeline, **outputs: Any) -> Any:
    return ModelBinding(model, pipeline).predict(Answers(**outputs), ROWS)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(-1, 3), (-1, -1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_matrix_of_floats_fits(shape: tuple[int, ...], dtype: Any) -> None:
    spec = TensorSpec(name="x", dtype=dtype, shape=shape)
    session = Answers(label=[0, 1], p=np.eye(3)[:2])
    ModelBinding(facts([spec]), NUMBERS).predict(session, ROWS)  # type: ignore[arg-type]
    assert session.fed["x"].dtype == dtype


@pytest.mark.parametrize(
    "inputs",
    [
        [TensorSpec(name="x", dtype="float32", shape=(-1, 4))],
        [TensorSpec(name="x", dtype="float32", shape=(1, 3))],
        [TensorSpec(name="x", dtype="float32", shape=(-1,))],
        [TensorSpec(name="x", dtype="string", shape=(-1, 3))],
        [INPUT, TensorSpec(name="z", dtype="float32", shape=(-1, 1))],
        [],
    ],
)
def test_other_inputs_are_refused_with_what_was_expected(inputs: list[TensorSpec]) -> None:
    with pytest.raises(RefusedError, match=r"shape \[-1, 3\]") as caught:
        require_fit(facts(inputs), NUMBERS)
    assert caught.value.gate == "contract"


@pytest.mark.parametrize("classes", [(0, 1), (0, 1, 3), ("0", "1", "2"), (False, True, 2)])
def test_other_classes_are_refused(classes: tuple[Any, ...]) -> None:
    with pytest.raises(RefusedError, match="classes"):
        require_fit(facts(classes=classes), NUMBERS)


def test_a_model_without_any_answer_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"ferryline\.role"):
        require_fit(facts(outputs=[TensorSpec(name="y", dtype="int64", shape=(-1,))]), NUMBERS)


def test_scores_come_in_the_order_of_the_pipeline() -> None:
    answer = predict(facts(classes=(2, 0, 1)), NUMBERS, label=[2, 1], p=[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert answer.labels == [2, 1]
    assert answer.scores.tolist() == [[0.2, 0.1, 0.7], [0.1, 0.8, 0.1]]


def test_without_a_label_the_highest_probability_names_it() -> None:
    answer = predict(
        facts(outputs=[PROBABILITY], classes=(2, 0, 1)), NUMBERS, p=[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]
    )
    assert answer.labels == [2, 1]


def test_words_may_be_answered_as_words_or_as_positions() -> None:
    words = pipeline_of('["cat", "dog", "owl"]')
    of_words = ("dog", "cat", "owl")
    text = TensorSpec(name="label", dtype="string", shape=(-1,), role=Role.LABEL)
    assert predict(facts(outputs=[text], classes=of_words), words, label=["owl", "dog"]).labels == [
        "owl",
        "dog",
    ]
    assert predict(facts(outputs=[LABEL], classes=of_words), words, label=[2, 0]).labels == ["owl", "dog"]


@pytest.mark.parametrize("dtype", ["int64", "bool"])
@pytest.mark.parametrize("classes", [(False, True), (0, 1), None])
def test_booleans_come_as_numbers_or_as_booleans(dtype: Any, classes: Any) -> None:
    spec = TensorSpec(name="label", dtype=dtype, shape=(-1,), role=Role.LABEL)
    labels = predict(
        facts(outputs=[spec], classes=classes), pipeline_of("[false, true]"), label=np.array([1, 0], dtype)
    ).labels
    assert [label is expected for label, expected in zip(labels, (True, False), strict=True)] == [True, True]


def test_a_decision_value_of_two_classes_is_passed_on() -> None:
    score = TensorSpec(name="s", dtype="float32", shape=(-1, 1), role=Role.SCORE)
    two = pipeline_of("[false, true]")
    answer = predict(facts(outputs=[LABEL, score], classes=(0, 1)), two, label=[1, 0], s=[[3.5], [-1.0]])
    assert answer.scores.tolist() == [[3.5], [-1.0]]


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ({"label": [0, 9], "p": np.eye(3)[:2]}, "no class"),
        ({"label": [0], "p": np.eye(3)[:2]}, "1 labels for 2 rows"),
        ({"label": [0, 1], "p": np.ones((2, 2))}, "2 numbers per row"),
    ],
)
def test_an_answer_of_no_use_is_an_error(outputs: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        predict(facts(), NUMBERS, **outputs)


@pytest.mark.parametrize("outputs", [[PROBABILITY], [LABEL, PROBABILITY]])
@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_finite_number_is_an_error_with_a_label_beside_it_too(
    outputs: list[TensorSpec], score: float
) -> None:
    with pytest.raises(ValueError, match="no finite number as 'p'"):
        predict(facts(outputs=outputs), NUMBERS, label=[0, 0], p=[[score, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_number_beyond_the_models_floats_is_fed_as_the_largest_of_them(dtype: Any) -> None:
    spec = TensorSpec(name="x", dtype=dtype, shape=(-1, 3))
    session = Answers(label=[0], p=np.eye(3)[:1])
    ModelBinding(facts([spec]), NUMBERS).predict(session, np.array([[1e39, -1e300, 2.5]]))  # type: ignore[arg-type]
    largest = float(np.finfo(dtype).max)
    assert session.fed["x"].tolist() == [[min(1e39, largest), max(-1e300, -largest), 2.5]]


def test_a_real_file_fits(constant_model: Callable[..., bytes], tmp_path: Path) -> None:
    from ferryline.model_runtime.facts import read_facts

    require_fit(read_facts(constant_model(1, width=3, classes=(0, 1, 2))), NUMBERS)
    with pytest.raises(RefusedError):
        require_fit(read_facts(constant_model(1, width=5, classes=(0, 1, 2))), NUMBERS)
