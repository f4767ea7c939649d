"""What stands for scikit-learn and skl2onnx: a learner that remembers which records it learnt, and its files.

A file of such a learner is the list of these records: what a published version knows is read from the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ferryline.registry.documents import ModelFacts, ParityReport, TensorSpec
from ferryline.trainer.learner import UnlearnableError

WIDTH = 2
CLASSES = 3  # with two there would be a ROC curve to compute
POISON = 1e300
FACTS = ModelFacts(
    opset=18,
    ir_version=10,
    inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, WIDTH)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)


class RememberingLearner:
    """As `Learner`; the first feature of a row is the record's id, the second the class it will expect."""

    def __init__(self, *_specs: object) -> None:
        self.idents: list[int] = []

    @property
    def fitted(self) -> bool:
        return bool(self.idents)

    @property
    def estimator(self) -> RememberingLearner:
        return self

    def probabilities(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        expected = np.full((len(rows), CLASSES), 0.1)
        classes = np.where(rows[:, 1] < CLASSES, rows[:, 1], 0).astype(int)
        expected[np.arange(len(rows)), classes] = 0.8
        return expected

    def learn(self, rows: npt.NDArray[np.float64], positions: npt.NDArray[np.int64]) -> None:
        if (rows[:, 1] == POISON).any():
            raise UnlearnableError("poison")
        self.idents.extend(rows[:, 0].astype(int).tolist())

    def taught(self, rows: npt.NDArray[np.float64], positions: npt.NDArray[np.int64]) -> RememberingLearner:
        """Another one that has learnt more."""
        other = RememberingLearner()
        other.idents = list(self.idents)
        other.learn(rows, positions)
        return other

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"idents": np.array(self.idents, dtype=np.int64)} if self.idents else {}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.idents = arrays["idents"].tolist() if arrays else []


def file_of(learner: RememberingLearner) -> bytes:
    """Stands for `export_onnx`."""
    return orjson.dumps(learner.idents)


def idents_of(data: bytes) -> list[int]:
    """The records that a file knows."""
    found: list[int] = orjson.loads(data)
    return found


PARITY = ParityReport(rows=1, label_mismatches=0, max_score_difference=0.0, tolerance=1e-4, dtype="float32")
