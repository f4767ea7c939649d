"""A batch of records in, a scored record or the reason why there is none for each of them out.

Nothing is lost and nothing is reordered: output i is about record i, and it is either scored or dead.
No record's content can raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from flink_scoring.binding import ModelBinding, Predictions
from model_runtime.served import ServedModel
from streams.pipeline import Pipeline
from streams.records import DecodedBatch, LabelUse, RecordDecoder
from streams.scored import ModelStamp, encode_scored

INFERENCE_FAILED = "inference_failed"
"""The reason of a record that is well formed and that the model cannot score."""

_DETAIL_LENGTH = 300


@dataclass(slots=True)
class ScoredBatch:
    """What became of n records; each list has n entries.

    Attributes:
        scored: the scored record, None for a dead one.
        reasons: why a record is dead, None for a scored one.
        details: the same in words.
        keeps_value: whether a dead letter can carry the record's value.
    """

    scored: list[bytes | None]
    reasons: list[str | None]
    details: list[str | None]
    keeps_value: list[bool]

    @classmethod
    def empty(cls, count: int) -> ScoredBatch:
        """A batch about which nothing is known yet."""
        return cls([None] * count, [None] * count, [None] * count, [True] * count)

    @property
    def dead(self) -> int:
        """How many records could not be scored."""
        return sum(reason is not None for reason in self.reasons)

    def bury(self, index: int, reason: str, detail: str) -> None:
        """Record `index` cannot be scored."""
        self.reasons[index], self.details[index] = reason, detail[:_DETAIL_LENGTH]


class Scorer:
    """Scores the records of a pipeline.

    Args:
        pipeline: says what a record is.
        largest_dead_value: bytes of the largest value that the dead-letter topic takes; a larger one is left
            where it is, and its dead letter says where that is.
    """

    def __init__(self, pipeline: Pipeline, *, largest_dead_value: int) -> None:
        self._pipeline = pipeline
        self._decoder = RecordDecoder(pipeline.source)
        self._largest_dead_value = largest_dead_value
        self._bound: tuple[str, ModelBinding] | None = None

    def score(
        self,
        values: Sequence[bytes | None],
        served: ServedModel,
        kafka_times: Sequence[datetime] | None = None,
    ) -> ScoredBatch:
        """Score a batch by one version.

        Args:
            values: n record values; None is a tombstone.
            served: what scores all of them.
            kafka_times: n aware times, for a pipeline whose records have no event time of their own.
        """
        batch = ScoredBatch.empty(len(values))
        decoded = self._decoder.decode_batch(values, label=LabelUse.OPTIONAL)
        for rejection in decoded.rejections:
            batch.bury(rejection.index, rejection.reason.value, rejection.detail)
        if len(decoded):
            self._score_decoded(batch, decoded, served, kafka_times)
        batch.keeps_value = [value is None or len(value) <= self._largest_dead_value for value in values]
        return batch

    def _score_decoded(
        self,
        batch: ScoredBatch,
        decoded: DecodedBatch,
        served: ServedModel,
        kafka_times: Sequence[datetime] | None,
    ) -> None:
        binding = self._binding(served)
        try:
            predictions = binding.predict(served.session, decoded.rows)
            chosen = np.arange(len(decoded))
        except ValueError:
            predictions, chosen = self._one_by_one(batch, decoded, served, binding)
        if not len(chosen):
            return
        places = decoded.accepted[chosen].tolist()
        times = [self._event_time(decoded, row, kafka_times) for row in chosen.tolist()]
        actuals = [decoded.labels[row] for row in chosen.tolist()]
        encoded = encode_scored(predictions.labels, predictions.scores, times, actuals, model=_stamp(served))
        for place, value in zip(places, encoded, strict=True):
            batch.scored[place] = value

    def _one_by_one(
        self, batch: ScoredBatch, decoded: DecodedBatch, served: ServedModel, binding: ModelBinding
    ) -> tuple[Predictions, npt.NDArray[np.int64]]:
        """One row spoils a run of the model for all: find the rows that do."""
        good: list[int] = []
        answers: list[Predictions] = []
        for row in range(len(decoded)):
            try:
                answers.append(binding.predict(served.session, decoded.rows[row : row + 1]))
                good.append(row)
            except ValueError as error:
                batch.bury(int(decoded.accepted[row]), INFERENCE_FAILED, str(error))
        return _joined(answers), np.asarray(good, dtype=np.int64)

    def _event_time(
        self, decoded: DecodedBatch, row: int, kafka_times: Sequence[datetime] | None
    ) -> datetime:
        moment = decoded.event_times[row]
        if moment is not None:
            return moment
        if kafka_times is None:
            raise TypeError("a pipeline without event_time is scored with the records' Kafka timestamps")
        return kafka_times[int(decoded.accepted[row])]

    def _binding(self, served: ServedModel) -> ModelBinding:
        if self._bound is None or self._bound[0] != served.manifest.digest:
            self._bound = (served.manifest.digest, ModelBinding(served.manifest, self._pipeline))
        return self._bound[1]


def _stamp(served: ServedModel) -> ModelStamp:
    return ModelStamp(served.name, served.version, served.generation, served.digest)


def _joined(answers: Sequence[Predictions]) -> Predictions:
    labels = [label for answer in answers for label in answer.labels]
    scores: list[npt.NDArray[np.floating[Any]]] = [
        answer.scores for answer in answers if answer.scores is not None
    ]
    return Predictions(labels, np.concatenate(scores) if scores else None)
