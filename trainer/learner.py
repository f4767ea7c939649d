"""The model that learns: a StandardScaler and an SGDClassifier with log loss, both by `partial_fit`."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline as SklearnPipeline
from sklearn.preprocessing import StandardScaler

from ferryline.registry.documents import Label
from ferryline.streams.pipeline import LabelSpec, LearnerSpec

Rows = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

FRAMEWORK = "scikit-learn"
ESTIMATOR = "StandardScaler + SGDClassifier(log_loss)"

_SCALER_ARRAYS = ("mean_", "var_", "scale_", "n_samples_seen_")
_CLASSIFIER_ARRAYS = ("coef_", "intercept_", "t_")


class UnlearnableError(Exception):
    """Numbers so large that the weights would not stay finite."""


class Learner:
    """Learns to tell `labels.classes` apart from rows of `width` numbers.

    Labels are positions in `labels.classes` here; only the exported file knows them by their own values.
    """

    def __init__(self, spec: LearnerSpec, labels: LabelSpec, width: int) -> None:
        self._spec = spec
        self._width = width
        self._targets = estimator_labels(labels.classes)
        self._reset()

    @property
    def fitted(self) -> bool:
        """Whether it has learnt anything yet."""
        return hasattr(self._scaler, "mean_")

    @property
    def estimator(self) -> SklearnPipeline:
        """The live estimator: rows in, labels and probabilities out."""
        return SklearnPipeline([("scaler", self._scaler), ("classifier", self._classifier)])

    def probabilities(self, rows: Rows) -> Rows:
        """What it expects of `rows` at this moment: [n, classes]; uniform where it cannot tell."""
        uniform = 1.0 / len(self._targets)
        if not self.fitted or not len(rows):
            return np.full((len(rows), len(self._targets)), uniform)
        with np.errstate(all="ignore"):  # extreme numbers are dealt with below
            scaled = np.nan_to_num(self._scaler.transform(rows))
            expected: Rows = self._classifier.predict_proba(scaled)
        expected[~np.isfinite(expected).all(axis=1)] = uniform
        return expected

    def taught(self, rows: Rows, positions: Positions) -> Learner:
        """Returns a learner that has learnt a micro-batch too; this one stays as it is.

        Args:
            rows: [n, width].
            positions: n positions in the classes.

        Raises:
            UnlearnableError: the batch would spoil the weights.
        """
        scaler, classifier = deepcopy((self._scaler, self._classifier))
        try:
            _fit(scaler, classifier, rows, self._targets[positions], self._targets)
        except ValueError as error:  # scikit-learn found an overflow
            raise UnlearnableError(str(error)) from error
        if not _is_finite(scaler, classifier):
            raise UnlearnableError("the weights overflow")
        learner = copy(self)
        learner._scaler, learner._classifier = scaler, classifier  # noqa: SLF001 - its own class
        return learner

    def arrays(self) -> Arrays:
        """Copies of everything that was learnt; empty before the first batch."""
        if not self.fitted:
            return {}
        scaler = {f"scaler.{name}": _copy(getattr(self._scaler, name)) for name in _SCALER_ARRAYS}
        classifier = {f"sgd.{name}": _copy(getattr(self._classifier, name)) for name in _CLASSIFIER_ARRAYS}
        return scaler | classifier

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from what `arrays()` gave.

        Raises:
            ValueError: an array is missing or of another shape.
        """
        self._reset()
        if not arrays:
            return
        # a first row lets scikit-learn make every private part itself; its numbers are then replaced
        _fit(self._scaler, self._classifier, np.zeros((1, self._width)), self._targets[:1], self._targets)
        for estimator, prefix, names in (
            (self._scaler, "scaler", _SCALER_ARRAYS),
            (self._classifier, "sgd", _CLASSIFIER_ARRAYS),
        ):
            for name in names:
                setattr(estimator, name, _restored(arrays, f"{prefix}.{name}", getattr(estimator, name)))

    def _reset(self) -> None:
        learning = self._spec.learning
        self._scaler = StandardScaler()
        self._classifier = SGDClassifier(
            loss="log_loss",
            alpha=learning.alpha,
            penalty=learning.penalty,
            l1_ratio=learning.l1_ratio,
            learning_rate=learning.learning_rate,
            eta0=learning.eta0,
            power_t=learning.power_t,
            random_state=learning.seed,
        )


def estimator_labels(classes: tuple[Label, ...]) -> npt.NDArray[Any]:
    """The classes as estimator and ONNX file know them: strings or int64, as ONNX has no boolean labels."""
    return np.array(classes) if isinstance(classes[0], str) else np.array(classes, dtype=np.int64)


def _fit(
    scaler: StandardScaler,
    classifier: SGDClassifier,
    rows: Rows,
    targets: npt.NDArray[Any],
    classes: npt.NDArray[Any],
) -> None:
    with np.errstate(all="ignore"):  # an overflow is found in the result
        scaler.partial_fit(rows)
        classifier.partial_fit(scaler.transform(rows), targets, classes=classes)


def _is_finite(scaler: StandardScaler, classifier: SGDClassifier) -> bool:
    parts = (scaler.scale_, classifier.coef_, classifier.intercept_)
    return all(bool(np.isfinite(part).all()) for part in parts)


def _copy(value: Any) -> npt.NDArray[Any]:
    return np.array(value, copy=True)


def _restored(arrays: Mapping[str, npt.NDArray[Any]], name: str, like: Any) -> Any:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    if arrays[name].shape != np.shape(like):
        raise ValueError(f"{name} has shape {arrays[name].shape}, expected {np.shape(like)}")
    copied = np.array(arrays[name], dtype=np.asarray(like).dtype, order="C")
    return copied if copied.ndim else copied[()]
