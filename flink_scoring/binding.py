"""How a model's tensors and a pipeline's features and classes fit together.

A model fits where it takes one matrix of floats, as wide as the pipeline's features, and names one of the
pipeline's classes per row: by an output with the role `label`, or else by the highest of one probability or
score per class. Probabilities and scores are put in the order of the pipeline's classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ferryline.flink_scoring.narrowing import narrow
from ferryline.model_runtime.session import Array, OnnxSession
from ferryline.registry.documents import Label, ModelFacts, Role, TensorSpec
from ferryline.registry.errors import RefusedError
from ferryline.streams.pipeline import Pipeline

GATE = "contract"

_FREE = -1
_FLOATS = ("float16", "float32", "float64")
_MATRIX = 2
_SCORING_ROLES = (Role.PROBABILITY, Role.SCORE)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model said about n rows.

    Attributes:
        labels: n classes of the pipeline.
        scores: [n, classes] in the order of the pipeline's classes, or [n, 1] decision values of a model with
            two classes; None where the model gives labels only.
    """

    labels: list[Label]
    scores: npt.NDArray[np.floating[Any]] | None


class ModelBinding:
    """Feeds rows of a pipeline to a model and reads its answers.

    Args:
        facts: the model, as its manifest or its file describes it.
        pipeline: the pipeline whose records are scored.

    Raises:
        RefusedError: the model does not fit (gate `contract`).
    """

    def __init__(self, facts: ModelFacts, pipeline: Pipeline) -> None:
        self._input = _require_input(facts, pipeline)
        self._label_output = _first(facts.outputs, (Role.LABEL,))
        self._score_output = _first(facts.outputs, _SCORING_ROLES)
        self._classes = _classes_of(facts, pipeline)
        self._columns = _column_order(self._classes, pipeline.source.label.classes)
        self._labels = _label_table(self._label_output, self._classes)
        self._require_outputs(facts)
        self._wanted = [spec.name for spec in (self._label_output, self._score_output) if spec is not None]

    def predict(self, session: OnnxSession, rows: npt.NDArray[np.float64]) -> Predictions:
        """What the model says about `rows`.

        Args:
            session: the loaded model.
            rows: [n, features].

        Raises:
            ValueError: the model cannot be run on these rows, or its answer is of no use: a score that is no
                finite number, or no class.
        """
        outputs = self._run(session, rows, self._wanted)
        scores = self._scores(outputs, len(rows))
        if self._label_output is None:
            return Predictions(self._best(scores), scores)
        return Predictions(self._named(outputs[self._label_output.name], len(rows)), scores)

    def labels(self, session: OnnxSession, rows: npt.NDArray[np.float64]) -> list[Label]:
        """Only the classes that `predict` gives; scores are looked at where nothing else names a class.

        Raises:
            ValueError: as `predict`.
        """
        if self._label_output is None:
            return self.predict(session, rows).labels
        name = self._label_output.name
        return self._named(self._run(session, rows, [name])[name], len(rows))

    def _run(
        self, session: OnnxSession, rows: npt.NDArray[np.float64], wanted: Sequence[str]
    ) -> dict[str, Array]:
        return session.run({self._input.name: narrow(rows, self._input.dtype)}, wanted)

    def _scores(self, outputs: dict[str, Array], count: int) -> Array | None:
        if self._score_output is None:
            return None
        scores = outputs[self._score_output.name].reshape(count, -1)
        if not np.isfinite(scores).all():
            raise ValueError(f"the model gave no finite number as {self._score_output.name!r}")
        width = scores.shape[1]
        if width == len(self._classes):
            return scores if self._columns is None else scores[:, self._columns]
        if width == 1 and self._label_output is not None:
            return scores
        raise ValueError(
            f"{self._score_output.name!r} gave {width} numbers per row for {len(self._classes)} classes"
        )

    def _best(self, scores: Array | None) -> list[Label]:
        if scores is None:
            raise ValueError("the model gave no number for a class")
        ordered = self._ordered_classes()
        return [ordered[index] for index in scores.argmax(axis=1).tolist()]

    def _ordered_classes(self) -> Sequence[Label]:
        if self._columns is None:
            return self._classes
        return [self._classes[column] for column in self._columns]

    def _named(self, answers: Array, count: int) -> list[Label]:
        if answers.size != count:
            raise ValueError(f"the model gave {answers.size} labels for {count} rows")
        try:
            return [self._labels[answer] for answer in answers.ravel().tolist()]
        except KeyError as error:
            raise ValueError(f"the model answered {error.args[0]!r}, which is no class") from error

    def _require_outputs(self, facts: ModelFacts) -> None:
        if self._label_output is None and self._score_output is None:
            outputs = ", ".join(spec.name for spec in facts.outputs)
            raise RefusedError(
                GATE,
                f"no output of {outputs} is a label, a probability or a score",
                "State the roles in the file's metadata as ferryline.role.<output>",
            )


def require_fit(facts: ModelFacts, pipeline: Pipeline) -> None:
    """Return when the model can score the pipeline's records.

    Raises:
        RefusedError: it cannot (gate `contract`).
    """
    ModelBinding(facts, pipeline)


def _require_input(facts: ModelFacts, pipeline: Pipeline) -> TensorSpec:
    width = pipeline.source.features.width
    wanted = f"pipeline {pipeline.name} feeds one float tensor of shape [-1, {width}]"
    if len(facts.inputs) != 1:
        names = ", ".join(spec.name for spec in facts.inputs)
        raise _misfit(f"{wanted}, the model has {len(facts.inputs)} inputs ({names})")
    spec = facts.inputs[0]
    fits = len(spec.shape) == _MATRIX and spec.shape[0] == _FREE and spec.shape[1] in {_FREE, width}
    if not fits or spec.dtype not in _FLOATS:
        raise _misfit(f"{wanted}, the model's input {spec.name!r} is {spec.dtype} {list(spec.shape)}")
    return spec


def _classes_of(facts: ModelFacts, pipeline: Pipeline) -> tuple[Label, ...]:
    """The model's classes as the pipeline writes them, in the model's order."""
    classes = pipeline.source.label.classes
    if facts.classes is None:
        return classes
    found = facts.classes
    if isinstance(classes[0], bool) and set(map(repr, found)) == {"0", "1"}:
        found = tuple(bool(value) for value in found)  # ONNX classifiers have no boolean labels
    if sorted(map(repr, found)) != sorted(map(repr, classes)):
        raise _misfit(
            f"the model's classes are {list(found)}, those of pipeline {pipeline.name} {list(classes)}"
        )
    return found


def _column_order(found: tuple[Label, ...], wanted: tuple[Label, ...]) -> list[int] | None:
    return None if found == wanted else [found.index(label) for label in wanted]


def _label_table(output: TensorSpec | None, classes: tuple[Label, ...]) -> dict[Label, Label]:
    """What each answer of the label output means."""
    is_number = output is not None and output.dtype != "string"
    if is_number and any(isinstance(label, str) for label in classes):
        return dict(enumerate(classes))  # numbers that stand for words are positions
    return {label: label for label in classes}  # False == 0 and True == 1, so these need no case of their own


def _first(outputs: Sequence[TensorSpec], roles: Sequence[Role]) -> TensorSpec | None:
    return next((spec for role in roles for spec in outputs if spec.role == role), None)


def _misfit(reason: str) -> RefusedError:
    return RefusedError(GATE, reason, "Promote a version that was trained for this pipeline")
