"""The model that learns: a StandardScaler and an SGDClassifier with log loss, both by `partial_fit`."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Numbers so large that the weights would not stay finite; the learner is as it was before."""


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

    def learn(self, rows: Rows, positions: Positions) -> None:
        """Learn a micro-batch: all of it, or nothing.

        Args:
            rows: [n, width].
            positions: n positions in the classes.

        Raises:
            UnlearnableError: the batch would spoil the weights.
        """
        before = self.arrays()
        try:
            self._fit(rows, self._targets[positions])
        except ValueError as error:  # scikit-learn found an overflow
            self.restore(before)
            raise UnlearnableError(str(error)) from error
        if not self._is_finite():
            self.restore(before)
            raise UnlearnableError("the weights overflow")

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
        self._fit(np.zeros((1, self._width)), self._targets[:1])
        for estimator, prefix, names in (
            (self._scaler, "scaler", _SCALER_ARRAYS),
            (self._classifier, "sgd", _CLASSIFIER_ARRAYS),
        ):
            for name in names:
                setattr(estimator, name, _restored(arrays, f"{prefix}.{name}", getattr(estimator, name)))

    def _fit(self, rows: Rows, targets: npt.NDArray[Any]) -> None:
        with np.errstate(all="ignore"):  # an overflow is found in the result
            self._scaler.partial_fit(rows)
            self._classifier.partial_fit(self._scaler.transform(rows), targets, classes=self._targets)

    def _is_finite(self) -> bool:
        parts = (self._scaler.scale_, self._classifier.coef_, self._classifier.intercept_)
        return all(bool(np.isfinite(part).all()) for part in parts)

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


def _copy(value: Any) -> npt.NDArray[Any]:
    return np.array(value, copy=True)


def _restored(arrays: Mapping[str, npt.NDArray[Any]], name: str, like: Any) -> Any:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    if arrays[name].shape != np.shape(like):
        raise ValueError(f"{name} has shape {arrays[name].shape}, expected {np.shape(like)}")
    copied = np.array(arrays[name], dtype=np.asarray(like).dtype, order="C")
    return copied if copied.ndim else copied[()]
