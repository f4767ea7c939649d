"""A batch of records in, a scored record or the reason why there is none for each of them out.

Nothing is lost and nothing is reordered: output i is about record i, and it is either scored or dead.
No record's content can raise.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ferryline.flink_scoring.binding import ModelBinding, Predictions
from ferryline.flink_scoring.live.tally import BatchTally
from ferryline.flink_scoring.shadowing.trial import Shadow, ShadowTally, worth_comparing
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.error_kinds import is_exhaustion
from ferryline.streams.pipeline import Pipeline
from ferryline.streams.records import DecodedBatch, LabelUse, RecordDecoder
from ferryline.streams.rejections import Rejection, RejectReason
from ferryline.streams.scored import ModelStamp, encode_scored

INFERENCE_FAILED = "inference_failed"
"""The reason of a record that is well formed and that the model cannot score."""

_DETAIL_LENGTH = 300
# the version that serves, its canary, and what served before each
_KEPT_BINDINGS = 4
# for memory, before a record counts as one that the model cannot score
_WAIT = 0.5
_MOST_WAITS = 10

Rows = npt.NDArray[np.int64]
_Item = TypeVar("_Item")


@dataclass(slots=True)
class ScoredBatch:
    """What became of n records; each list has n entries.

    Attributes:
        scored: the scored record, None for a dead one.
        reasons: why a record is dead, None for a scored one.
        details: the same in words.
        keeps_value: whether a dead letter can carry the record's value.
        by_version: how many records each version scored; not a list of n.
        tally: what the models said, for metrics.
        shadow: what became of the shadow's answers.
        waits: how often scoring waited for memory.
    """

    scored: list[bytes | None]
    reasons: list[str | None]
    details: list[str | None]
    keeps_value: list[bool]
    by_version: dict[int, int] = field(default_factory=dict)
    tally: BatchTally = field(default_factory=BatchTally)
    shadow: ShadowTally = field(default_factory=ShadowTally)
    waits: int = 0

    @classmethod
    def empty(cls, count: int) -> ScoredBatch:
        """A batch about which nothing is known yet."""
        return cls([None] * count, [None] * count, [None] * count, [True] * count)

    @property
    def dead(self) -> int:
        """How many records could not be scored."""
        return sum(reason is not None for reason in self.reasons)

    def put(self, places: Sequence[int], values: list[bytes]) -> None:
        """The records at ascending `places` were scored."""
        if len(places) == len(self.scored):
            self.scored = [*values]
            return
        for place, value in zip(places, values, strict=True):
            self.scored[place] = value

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
        self._bound: dict[str, ModelBinding] = {}
        self._shadow = Shadow(pipeline)

    def score(
        self,
        values: Sequence[bytes | None],
        served: ServedModel,
        kafka_times: Sequence[datetime | None] | None = None,
        keys: Sequence[bytes | None] | None = None,
        *,
        shadow: ServedModel | None = None,
    ) -> ScoredBatch:
        """Score a batch under one generation of the channel.

        Args:
            values: n record values; None is a tombstone.
            served: the version that scores them, but for those that its canary gets.
            kafka_times: n aware times, for a pipeline whose records have no event time of their own; None
                for a moment that no calendar has.
            keys: n record keys, which decide between the version and its canary; a record without a key is
                decided by its value.
            shadow: a version to try on the same records, after those that score them.
        """
        began = time.perf_counter()
        batch = ScoredBatch.empty(len(values))
        decoded = self._decoder.decode_batch(values, label=LabelUse.OPTIONAL)
        if self._pipeline.source.event_time is None and kafka_times is not None and None in kafka_times:
            decoded = _in_calendar(decoded, kafka_times)
        for rejection in decoded.rejections:
            batch.bury(rejection.index, rejection.reason.value, rejection.detail)
        for chosen, rows in _shares(served, decoded, values, keys):
            self._score_rows(batch, decoded, rows, chosen, kafka_times, shadow)
        batch.keeps_value = [value is None or len(value) <= self._largest_dead_value for value in values]
        if shadow is not None:
            self._shadow.earn(time.perf_counter() - began - batch.shadow.seconds)
        return batch

    def _score_rows(
        self,
        batch: ScoredBatch,
        decoded: DecodedBatch,
        rows: Rows,
        served: ServedModel,
        kafka_times: Sequence[datetime | None] | None,
        shadow: ServedModel | None,
    ) -> None:
        began = time.perf_counter()
        parts = self._predict(batch, decoded, rows, served)
        if not parts:
            return
        scored, predictions = _joined(parts)
        seconds = time.perf_counter() - began
        places = decoded.accepted[scored].tolist()
        times = self._event_times(decoded, scored, places, kafka_times)
        actuals = _picked(decoded.labels, scored)
        batch.tally.add(predictions.labels, actuals, seconds)
        beside = worth_comparing(served, shadow)
        shadows = None
        if beside is not None:
            shadows = self._shadow.compare(beside, decoded.rows[scored], predictions.labels, batch.shadow)
        encoded = encode_scored(
            predictions.labels, predictions.scores, times, actuals, model=_stamp(served), shadows=shadows
        )
        batch.put(places, encoded)
        batch.by_version[served.version] = len(places)

    def _predict(
        self, batch: ScoredBatch, decoded: DecodedBatch, rows: Rows, served: ServedModel
    ) -> list[tuple[Rows, Predictions]]:
        """What the model says of the rows that it can score, in parts; the others are dead.

        One row spoils a run for all: it is found by halving, so its neighbours cost a handful of runs more.
        """
        every = len(rows) == len(decoded)
        try:
            said = self._binding(served).predict(
                served.session, decoded.rows if every else decoded.rows[rows]
            )
        except ValueError as error:
            if len(rows) == 1:
                if is_exhaustion(str(error)) and batch.waits < _MOST_WAITS:
                    batch.waits += 1
                    time.sleep(_WAIT)
                    return self._predict(batch, decoded, rows, served)
                batch.bury(int(decoded.accepted[rows[0]]), INFERENCE_FAILED, str(error))
                return []
            halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
            return [part for half in halves for part in self._predict(batch, decoded, half, served)]
        return [(rows, said)]

    def _event_times(
        self,
        decoded: DecodedBatch,
        rows: Rows,
        places: Sequence[int],
        kafka_times: Sequence[datetime | None] | None,
    ) -> list[datetime]:
        if self._pipeline.source.event_time is not None:
            return [moment for moment in _picked(decoded.event_times, rows) if moment is not None]
        if kafka_times is None:
            raise TypeError("a pipeline without event_time is scored with the records' Kafka timestamps")
        return [moment for place in places if (moment := kafka_times[place]) is not None]

    def _binding(self, served: ServedModel) -> ModelBinding:
        digest = served.manifest.digest
        if digest not in self._bound:
            if len(self._bound) >= _KEPT_BINDINGS:
                self._bound.clear()
            self._bound[digest] = ModelBinding(served.manifest, self._pipeline)
        return self._bound[digest]


def _shares(
    served: ServedModel,
    decoded: DecodedBatch,
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
) -> list[tuple[ServedModel, Rows]]:
    """Which version scores which decoded rows."""
    rows = np.arange(len(decoded))
    if not len(rows):
        return []
    canary = served.canary
    if canary is None:
        return [(served, rows)]
    takes = canary.split.takes
    keyed = [(keys[place] if keys else None) or values[place] or b"" for place in decoded.accepted.tolist()]
    drawn = np.fromiter(map(takes, keyed), dtype=bool, count=len(keyed))
    shares = [(served, rows[~drawn]), (canary.model, rows[drawn])]
    return [(version, share) for version, share in shares if len(share)]


def _in_calendar(decoded: DecodedBatch, kafka_times: Sequence[datetime | None]) -> DecodedBatch:
    """The batch without the records whose Kafka timestamp is no moment: producers may write any number."""
    places = decoded.accepted.tolist()
    wrong = [
        Rejection(place, RejectReason.BAD_EVENT_TIME, "its Kafka timestamp is beyond the calendar's years")
        for place in places
        if kafka_times[place] is None
    ]
    kept = [row for row, place in enumerate(places) if kafka_times[place] is not None]
    return decoded.taking(kept, [*decoded.rejections, *wrong])


def _picked(items: list[_Item], rows: Rows) -> list[_Item]:
    """The items of ascending `rows`, which mostly are all of them."""
    return items if len(rows) == len(items) else [items[row] for row in rows.tolist()]


def _stamp(served: ServedModel) -> ModelStamp:
    return ModelStamp(served.name, served.version, served.generation, served.digest)


def _joined(parts: Sequence[tuple[Rows, Predictions]]) -> tuple[Rows, Predictions]:
    if len(parts) == 1:
        return parts[0]
    labels = [label for _, said in parts for label in said.labels]
    scores = [said.scores for _, said in parts if said.scores is not None]
    rows = np.concatenate([rows for rows, _ in parts])
    return rows, Predictions(labels, np.concatenate(scores) if scores else None)
