"""The scored record: what the model said, which version said it, and the truth where the source had it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from registry.documents import Label
from streams.errors import MalformedRecordError

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """The version and generation that scored a record."""

    name: str
    version: int
    generation: int
    digest: str


class ScoredRecord(BaseModel):
    """One scored record, as readers of the output topic see it; fields they do not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    prediction: Label
    scores: tuple[float | None, ...] | None
    event_time: AwareDatetime
    scored_at: AwareDatetime
    actual: Label | None = None
    model: ModelStamp

    @property
    def correct(self) -> bool | None:
        """Whether the prediction was right; None where the truth is not known."""
        return None if self.actual is None else self.prediction == self.actual


def encode_scored(
    predictions: Sequence[Label],
    scores: npt.NDArray[np.floating[Any]] | None,
    event_times: Sequence[datetime],
    actuals: Sequence[Label | None],
    *,
    model: ModelStamp,
    scored_at: datetime | None = None,
) -> list[bytes]:
    """The output records of a batch, which one model scored at one moment.

    Args:
        predictions: n labels.
        scores: [n, classes] in the order of the model's classes; None where it gives labels only.
        event_times: n aware times.
        actuals: n labels, None where the source had none; the field is then left out.
        model: what scored the batch.
        scored_at: when; None for now.
    """
    stamp = orjson.Fragment(orjson.dumps(model))
    at = orjson.Fragment(orjson.dumps(scored_at or datetime.now(UTC), option=_OPTIONS))
    # one conversion for the batch: a C-contiguous float array is what orjson writes without Python objects
    rows = [None] * len(predictions) if scores is None else list(np.ascontiguousarray(scores))
    encoded = []
    for prediction, row, event_time, actual in zip(predictions, rows, event_times, actuals, strict=True):
        record: dict[str, Any] = {
            "prediction": prediction,
            "scores": row,
            "event_time": event_time,
            "scored_at": at,
        }
        if actual is not None:
            record["actual"] = actual
        record["model"] = stamp
        encoded.append(orjson.dumps(record, option=_OPTIONS))
    return encoded


def decode_scored(value: bytes) -> ScoredRecord:
    """Read one output record.

    Raises:
        MalformedRecordError: it is none.
    """
    try:
        return ScoredRecord.model_validate_json(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "record"
        raise MalformedRecordError(f"no scored record: {where}: {fault['msg']}") from error
