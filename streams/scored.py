"""The scored record: what the model said, which version said it, and the truth where the source had it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from ferryline.registry.documents import Label
from ferryline.streams.errors import MalformedRecordError

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
_NULL = b"null"


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """The version and generation that scored a record."""

    name: str
    version: int
    generation: int
    digest: str


@dataclass(frozen=True, slots=True)
class ShadowAnswer:
    """What a version said that was tried beside the one that scored the record."""

    prediction: Label
    agrees: bool
    model: ModelStamp


class ScoredRecord(BaseModel):
    """One scored record, as readers of the output topic see it; fields they do not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    prediction: Label
    scores: tuple[float | None, ...] | None
    event_time: AwareDatetime
    scored_at: AwareDatetime
    actual: Label | None = None
    model: ModelStamp
    shadow: ShadowAnswer | None = None

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
    shadows: Sequence[orjson.Fragment | None] | None = None,
) -> list[bytes]:
    """The output records of a batch, which one model scored at one moment.

    Args:
        predictions: n labels.
        scores: [n, classes] in the order of the model's classes; None where it gives labels only.
        event_times: n aware times.
        actuals: n labels, None where the source had none; the field is then left out.
        model: what scored the batch.
        scored_at: when; None for now.
        shadows: n encoded `ShadowAnswer`s, None where there is none; the field is then left out.
    """
    at = orjson.dumps(scored_at or datetime.now(UTC), option=_OPTIONS)
    ends = b',"scored_at":' + at, b',"model":' + orjson.dumps(model)
    # text joined to text: few keys and labels differ, so only numbers and times are converted one by one
    heads = _by_label(predictions, lambda label: b'{"prediction":' + label + b',"scores":')
    tails = _by_label(actuals, lambda label: (b"" if label == _NULL else b',"actual":' + label).join(ends))
    rows = [_NULL] * len(predictions) if scores is None else _rows(scores)
    last = [b"}"] * len(predictions) if shadows is None else [_shadow(shadow) for shadow in shadows]
    return [
        b"".join((head, row, b',"event_time":', time, tail, end))
        for head, row, time, tail, end in zip(heads, rows, _times(event_times), tails, last, strict=True)
    ]


def _by_label(labels: Sequence[Label | None], text: Callable[[bytes], bytes]) -> list[bytes]:
    """A text for each label, made once for those that are the same."""
    if {bool, int} <= set(map(type, labels)):  # True is no 1 here, and to a dictionary they are one key
        return [text(orjson.dumps(label)) for label in labels]
    texts = {label: text(orjson.dumps(label)) for label in set(labels)}
    return [texts[label] for label in labels]


def _rows(scores: npt.NDArray[np.floating[Any]]) -> list[bytes]:
    # a C-contiguous float array is what orjson writes without Python objects; numbers hold no bracket
    text = orjson.dumps(np.ascontiguousarray(scores), option=_OPTIONS)
    return text[1:-1].replace(b"],[", b"]\n[").split(b"\n") if len(scores) else []


def _times(moments: Sequence[datetime]) -> list[bytes]:
    text = orjson.dumps(list(moments), option=_OPTIONS)
    return text[1:-1].split(b",") if moments else []


def _shadow(shadow: orjson.Fragment | None) -> bytes:
    return b"}" if shadow is None else b',"shadow":' + orjson.dumps(shadow) + b"}"


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
