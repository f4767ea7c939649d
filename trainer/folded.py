"""The learner's estimator in a form that runs several times as fast: the scaler folded into the weights.

A standard scaler before a linear model is a linear model, and one operator of ONNX computes its scores and
labels. The probabilities of scikit-learn's classifier with log loss are the sigmoids of the scores, divided
by their sum (one against the rest).

The operator computes in float32, and folding loses digits of features with a large offset: the parity gate
decides whether this form may be used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline as SklearnPipeline

_ML = "ai.onnx.ml"


class FoldedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A scaler and a linear classifier as one linear classifier; it exists to be exported.

    Args:
        weights: [classes, features].
        intercepts: [classes].
        classes: the labels, in the order of the weights.
    """

    def __init__(self, weights: Any, intercepts: Any, classes: Any) -> None:
        self.weights = weights
        self.intercepts = intercepts
        self.classes = classes
        self.classes_ = classes


def fold(estimator: SklearnPipeline) -> FoldedClassifier:
    """The folded form of a fitted scaler and classifier."""
    scaler, classifier = (step for _, step in estimator.steps)
    weights = classifier.coef_ / scaler.scale_
    intercepts = classifier.intercept_ - weights @ scaler.mean_
    if len(classifier.classes_) == 2:  # noqa: PLR2004 - of two classes scikit-learn keeps the second one's row
        weights, intercepts = np.vstack((-weights, weights)), np.concatenate((-intercepts, intercepts))
    return FoldedClassifier(weights, intercepts, classifier.classes_)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    folded: FoldedClassifier = operator.raw_operator
    label, probabilities = (variable.full_name for variable in operator.outputs)
    scores, negated, powers, raised, chances = map(
        scope.get_unique_variable_name, ("scores", "negated", "powers", "raised", "chances")
    )
    one = scope.get_unique_variable_name("one")
    container.add_initializer(one, TensorProto.FLOAT, [], [1.0])
    container.add_node(
        "LinearClassifier",
        operator.inputs[0].full_name,
        [label, scores],
        op_domain=_ML,
        name=scope.get_unique_operator_name("LinearClassifier"),
        coefficients=folded.weights.astype(np.float32).ravel().tolist(),
        intercepts=folded.intercepts.astype(np.float32).tolist(),
        post_transform="NONE",
        multi_class=1,
        **_labels(folded.classes),
    )
    # its own LOGISTIC takes small sigmoids from 1, which leaves no digits of them
    for kind, read, written in (
        ("Neg", [scores], negated),
        ("Exp", [negated], powers),
        ("Add", [powers, one], raised),
        ("Reciprocal", [raised], chances),
    ):
        container.add_node(kind, read, written, name=scope.get_unique_operator_name(kind))
    name = scope.get_unique_operator_name("Normalizer")
    container.add_node("Normalizer", chances, probabilities, op_domain=_ML, name=name, norm="L1")


def _labels(classes: Any) -> dict[str, list[Any]]:
    numbers = np.issubdtype(classes.dtype, np.integer)
    return {"classlabels_ints" if numbers else "classlabels_strings": classes.tolist()}


update_registered_converter(
    FoldedClassifier,
    "FerrylineFoldedClassifier",
    calculate_linear_classifier_output_shapes,
    _convert,
    options={"zipmap": [False], "nocl": [False], "output_class_labels": [False]},
)
