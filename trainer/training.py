"""One step of training: decode, predict, score, learn. No IO and no clock.

A step is prepared first and committed at once. `prepare` changes nothing: whatever it raises, learner,
evaluation, recent rows and offsets are as they were. `commit` cannot fail: `prepare` made all that it stores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ferryline.registry.error_kinds import ErrorKind, kind_of
from ferryline.streams.pipeline import Pipeline
from ferryline.streams.records import DecodedBatch, LabelUse, RecordDecoder, Rejection, RejectReason
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.evaluation import PrequentialWindow
from ferryline.trainer.learner import Learner, UnlearnableError
from ferryline.trainer.parity import GOLDEN_ROWS
from ferryline.trainer.positions import Placement
from ferryline.trainer.progress import Progress
from ferryline.trainer.ring import Ring, Rows

Arrays = dict[str, npt.NDArray[Any]]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """All that a batch changes, ready to be stored.

    Attributes:
        learner: which has learnt the batch.
        progress: which has passed the batch.
        scored: predictions of the learnt records, as `PrequentialWindow.add` takes them.
        rows: the learnt records, [n, features].
        rejections: the other records, in the order of the batch.
    """

    learner: Learner
    progress: Progress
    scored: Rows
    rows: Rows
    rejections: list[Rejection]


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
        """Learn a batch; returns what could not be learnt from, with reasons. See `prepare`."""
        step = self.prepare(batch)
        self.commit(step)
        return step.rejections

    def prepare(self, batch: FetchedBatch) -> PreparedStep:
        """Returns what learning `batch` would change; changes nothing.

        A record that breaks the preparation is rejected and spoils only itself.

        Raises:
            Exception: the machine lacks memory or the like, or no single record is to blame.
        """
        try:
            return self._prepared(batch, [])
        except Exception as error:
            if kind_of(error) is not ErrorKind.OURS:
                raise
            broken = self._broken_records(batch)
            if not broken:
                raise
            return self._prepared(batch, broken)

    def commit(self, step: PreparedStep) -> None:
        """Store a step that was prepared from the present state."""
        self.window.add(step.scored)
        self.recent.extend(step.rows)
        self.learner = step.learner
        self.progress = step.progress

    def place(self, placement: Placement) -> None:
        """Note where reading goes on."""
        self.progress = self.progress.placed(placement)

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

    def _prepared(self, batch: FetchedBatch, broken: list[Rejection]) -> PreparedStep:
        without = {rejection.index for rejection in broken}
        kept = [index for index in range(len(batch)) if index not in without]
        decoded, undecoded = self._decoded(batch.of(kept))
        positions = self._positions(decoded)
        expected = self.learner.probabilities(decoded.rows)
        learner, learnt, unlearnable = _taught(self.learner, decoded, positions)
        rejections = broken + [
            Rejection(kept[each.index], each.reason, each.detail) for each in undecoded + unlearnable
        ]
        times = [time for time, row in zip(decoded.event_times, learnt, strict=True) if row and time]
        progress = self.progress.advanced(
            learnt=int(learnt.sum()),
            skipped=Counter(str(rejection.reason) for rejection in rejections),
            offsets=batch.next_offsets,
            newest=max(times, default=None),
        )
        scored = self.window.scored(positions[learnt], expected[learnt])
        return PreparedStep(
            learner, progress, scored, decoded.rows[learnt], sorted(rejections, key=lambda each: each.index)
        )

    def _decoded(self, batch: FetchedBatch) -> tuple[DecodedBatch, list[Rejection]]:
        """The records with their times, and those that cannot be learnt from."""
        decoded = self._decoder.decode_batch(batch.values, label=LabelUse.REQUIRED)
        places = decoded.accepted.tolist()
        times = [
            event_time or batch.timestamp(place)
            for place, event_time in zip(places, decoded.event_times, strict=True)
        ]
        timeless = [
            Rejection(place, RejectReason.BAD_EVENT_TIME, _no_moment(batch.timestamps[place]))
            for place, moment in zip(places, times, strict=True)
            if moment is None
        ]
        decoded = replace(decoded, event_times=times)
        if not timeless:
            return decoded, decoded.rejections
        rejections = decoded.rejections + timeless
        return decoded.taking([row for row, moment in enumerate(times) if moment], rejections), rejections

    def _positions(self, decoded: DecodedBatch) -> Positions:
        index_of = self.pipeline.source.label.index_of
        return np.array([index_of(label) for label in decoded.labels], dtype=np.int64)

    def _broken_records(self, batch: FetchedBatch) -> list[Rejection]:
        """The records that cannot be prepared even alone."""
        broken = []
        for index in range(len(batch)):
            try:
                self._prepared(batch.of([index]), [])
            except Exception as error:
                if kind_of(error) is not ErrorKind.OURS:
                    raise
                detail = f"{type(error).__name__}: {error}"
                broken.append(Rejection(index, RejectReason.UNLEARNABLE, detail))
        return broken


def _taught(
    learner: Learner, decoded: DecodedBatch, positions: Positions
) -> tuple[Learner, npt.NDArray[np.bool_], list[Rejection]]:
    """Returns the learner after the batch, which rows it learnt, and the others.

    Where the batch would spoil the weights it is learnt row by row, without those that do.
    """
    learnt = np.ones(len(decoded), dtype=bool)
    if not len(decoded):
        return learner, learnt, []
    try:
        return learner.taught(decoded.rows, positions), learnt, []
    except UnlearnableError:
        pass
    rejections = []
    for row in range(len(decoded)):
        try:
            learner = learner.taught(decoded.rows[row : row + 1], positions[row : row + 1])
        except UnlearnableError as error:
            learnt[row] = False
            rejections.append(Rejection(int(decoded.accepted[row]), RejectReason.UNLEARNABLE, str(error)))
    return learner, learnt, rejections


def _no_moment(timestamp: int) -> str:
    return f"Kafka's timestamp {timestamp} is no moment in milliseconds of the years 1 to 9999"


def _required(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    return arrays[name]
