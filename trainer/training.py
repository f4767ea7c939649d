"""One step of training: decode, predict, score, learn. No IO and no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from ferryline.streams.pipeline import Pipeline
from ferryline.streams.records import DecodedBatch, LabelUse, RecordDecoder, Rejection, RejectReason
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.evaluation import PrequentialWindow
from ferryline.trainer.learner import Learner, UnlearnableError
from ferryline.trainer.parity import GOLDEN_ROWS
from ferryline.trainer.progress import Progress
from ferryline.trainer.ring import Ring

Arrays = dict[str, npt.NDArray[Any]]


class Training:
    """The learner of a pipeline with all that must be remembered together with it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        source = pipeline.source
        self.learner = Learner(pipeline.learner, source.label, source.features.width)
        self.window = PrequentialWindow(pipeline.evaluation.window, len(source.label.classes))
        self.recent = Ring(max(pipeline.export.parity_rows, GOLDEN_ROWS), source.features.width)
        self.progress = Progress()
        self._decoder = RecordDecoder(source)

    def step(self, batch: FetchedBatch) -> list[Rejection]:
        """Learn a batch; returns what could not be learnt from, with reasons. Nothing in it raises."""
        decoded = self._decoder.decode_batch(batch.values, label=LabelUse.REQUIRED)
        index_of = self.pipeline.source.label.index_of
        positions = np.array([index_of(label) for label in decoded.labels], dtype=np.int64)
        learnable = np.ones(len(decoded), dtype=bool)
        rejections = decoded.rejections
        if len(decoded):
            expected = self.learner.probabilities(decoded.rows)
            rejections = rejections + self._learn(decoded, positions, learnable)
            self.window.add(positions[learnable], expected[learnable])
            self.recent.extend(decoded.rows[learnable])
        self.progress.advance(
            learnt=int(learnable.sum()),
            skipped=Counter(str(rejection.reason) for rejection in rejections),
            offsets=batch.next_offsets,
            newest=_newest_event_time(decoded, batch, learnable),
        )
        return rejections

    def arrays(self) -> Arrays:
        """The numbers of the state."""
        kept = {f"learner.{name}": values for name, values in self.learner.arrays().items()}
        return kept | {"window": self.window.rows(), "recent": self.recent.newest()}

    def restore(self, progress: Progress, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from `progress` and what `arrays()` gave.

        Raises:
            ValueError: an array is missing or of another shape.
        """
        prefix = "learner."
        learnt = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
        self.learner.restore(learnt)
        self.window.restore(_required(arrays, "window"))
        self.recent.extend(_required(arrays, "recent"))
        self.progress = progress

    def _learn(
        self, decoded: DecodedBatch, positions: npt.NDArray[np.int64], learnable: npt.NDArray[np.bool_]
    ) -> list[Rejection]:
        """Learn the batch; where it would spoil the weights, row by row without those that do."""
        try:
            self.learner.learn(decoded.rows, positions)
        except UnlearnableError:
            return self._learn_singly(decoded, positions, learnable)
        return []

    def _learn_singly(
        self, decoded: DecodedBatch, positions: npt.NDArray[np.int64], learnable: npt.NDArray[np.bool_]
    ) -> list[Rejection]:
        rejections = []
        for row in range(len(decoded)):
            try:
                self.learner.learn(decoded.rows[row : row + 1], positions[row : row + 1])
            except UnlearnableError as error:
                learnable[row] = False
                rejections.append(Rejection(int(decoded.accepted[row]), RejectReason.UNLEARNABLE, str(error)))
        return rejections


def _newest_event_time(
    decoded: DecodedBatch, batch: FetchedBatch, learnable: npt.NDArray[np.bool_]
) -> datetime | None:
    times = (
        event_time or batch.timestamp(int(decoded.accepted[row]))
        for row, event_time in enumerate(decoded.event_times)
        if learnable[row]
    )
    return max(times, default=None)


def _required(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    return arrays[name]
