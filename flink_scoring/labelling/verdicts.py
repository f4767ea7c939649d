"""Delayed labels: what a label's message says, and whether the prediction it is held against was right.

No Flink, Kafka or clock in it.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Any

import orjson

from ferryline.registry.documents import Label
from ferryline.streams.pipeline import Pipeline


class LabelOutcome(StrEnum):
    """What became of one label."""

    RIGHT = auto()
    WRONG = auto()
    UNMATCHED = auto()
    """There is no prediction under its key within the time; the prediction may be missing or long past."""
    MALFORMED = auto()
    """It names no class of the pipeline."""


class LabelJudge:
    """Holds labels against predictions.

    A label's message is a JSON object with the label in a field, or the bare label: `{"actual_y": 3}`, `3`,
    `"spam"` or spam.

    Args:
        pipeline: says which classes there are, and which field holds the label.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        spec = pipeline.source.label
        self._spec = spec
        self._field = (pipeline.labels and pipeline.labels.field) or spec.field
        # how Flink writes a JSON value of a column that is text
        self._texts = {label: _as_text(label) for label in spec.classes}
        self._words = {label: label for label in spec.classes if isinstance(label, str)}

    def judge(self, message: bytes | None, prediction: str | None) -> LabelOutcome:
        """What becomes of a label.

        Args:
            message: the value of the label's message; None is a tombstone.
            prediction: the predicted class as text; None where no prediction was found.
        """
        label = self.read(message)
        if label is None:
            return LabelOutcome.MALFORMED
        if prediction is None:
            return LabelOutcome.UNMATCHED
        return LabelOutcome.RIGHT if self._texts[label] == prediction else LabelOutcome.WRONG

    def read(self, message: bytes | None) -> Label | None:
        """The class that a message names; None where it names none."""
        if message is None:
            return None
        try:
            found: Any = orjson.loads(message)
        except orjson.JSONDecodeError:
            return self._words.get(message.decode(errors="replace"))
        if isinstance(found, dict):
            found = found.get(self._field)
        index = self._spec.index_of(found)
        if index is not None:
            return self._spec.classes[index]
        # a bare word may look like JSON, such as the class "1" or "true"
        return self._words.get(message.decode(errors="replace"))


def _as_text(label: Label) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
