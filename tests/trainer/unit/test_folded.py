"""The folded form says what the estimator says, and is left where it would not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import orjson
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline as SklearnPipeline
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ferryline.streams.pipeline import parse_pipeline
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import export_candidate
from ferryline.trainer.export import export_onnx
from ferryline.trainer.folded import fold
from ferryline.trainer.parity import load_session
from ferryline.trainer.positions import Placement
from ferryline.trainer.training import Training

WIDTH = 6


def fitted(
    rng: np.random.Generator, labels: list[Any], *, spread: float = 1.0
) -> tuple[SklearnPipeline, Any]:
    rows = rng.normal(loc=3.0, scale=spread, size=(400, WIDTH))
    scores = (rows - 3.0) @ rng.normal(size=(WIDTH, len(labels)))
    truths = np.array(labels)[scores.argmax(axis=1)]
    estimator = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))
    return estimator.fit(rows, truths), rows


def exported(estimator: SklearnPipeline, labels: list[Any]) -> bytes:
    return export_onnx(fold(estimator), width=WIDTH, classes=tuple(labels), opset=18, precision="float32")


@pytest.mark.parametrize("labels", [[0, 1], ["ham", "spam"], [0, 1, 2, 3], ["a", "b", "c"]], ids=str)
def test_labels_and_probabilities_are_the_estimators(rng: np.random.Generator, labels: list[Any]) -> None:
    estimator, rows = fitted(rng, labels)
    outputs = load_session(exported(estimator, labels)).run({"input": rows.astype(np.float32)})
    assert outputs["label"].tolist() == estimator.predict(rows).tolist()
    assert np.abs(outputs["probabilities"] - estimator.predict_proba(rows)).max() < 1e-5


def test_a_row_that_no_class_wants_keeps_its_digits(rng: np.random.Generator) -> None:
    estimator, rows = fitted(rng, [0, 1, 2])
    estimator[-1].intercept_ -= 20.0 + estimator.decision_function(rows).max()
    # what 1 - sigmoid(-score) leaves no digits of in float32, and what is no number in it left out
    rows = rows[estimator.decision_function(rows).min(axis=1) > -80]
    assert len(rows) > 10
    outputs = load_session(exported(estimator, [0, 1, 2])).run({"input": rows.astype(np.float32)})
    assert np.abs(outputs["probabilities"] - estimator.predict_proba(rows)).max() < 1e-3


def test_a_feature_that_never_changed_is_no_fault(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(200, WIDTH))
    rows[:, 2] = 7.0
    estimator = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))
    estimator.fit(rows, (rows[:, 0] > 0).astype(int))
    outputs = load_session(exported(estimator, [0, 1])).run({"input": rows.astype(np.float32)})
    assert np.abs(outputs["probabilities"] - estimator.predict_proba(rows)).max() < 1e-5


def _operators(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


def _training(make_batch: Callable[..., FetchedBatch], rng: np.random.Generator, offset: float) -> Training:
    training = Training(
        parse_pipeline(
            "[pipeline]\nname='o'\nmodel='o'\n[source]\ntopic='t'\n[source.features]\nfield='x'\n"
            "kind='array'\nsize=4\n[source.label]\nfield='y'\nclasses=[0,1]\n",
            where="test",
        )
    )
    training.place(Placement(offsets={0: 0}))
    for begin in range(0, 1000, 100):
        rows = rng.normal(size=(100, 4))
        values = [orjson.dumps({"x": (row + offset).tolist(), "y": int(row.sum() > 0)}) for row in rows]
        training.step(make_batch(values, first=begin))
    return training


def test_the_folded_form_is_taken_where_it_is_exact(
    make_batch: Callable[..., FetchedBatch], rng: np.random.Generator
) -> None:
    model = export_candidate(_training(make_batch, rng, offset=0.0))
    assert _operators(model.data)[0] == "LinearClassifier"


def test_features_with_an_offset_keep_the_scaler_and_the_precision(
    make_batch: Callable[..., FetchedBatch], rng: np.random.Generator
) -> None:
    model = export_candidate(_training(make_batch, rng, offset=300.0))
    assert _operators(model.data)[0] == "Scaler"
    assert model.precision == "float32"
