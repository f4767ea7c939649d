"""From the bytes of a batch of records to a matrix, labels and times; a bad record spoils only itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from registry.documents import Label
from streams.event_time import parse_event_time
from streams.json_faults import explain_invalid_json
from streams.pipeline import ObjectFeatures, SourceSpec
from streams.rejections import RecordFault, Rejection, RejectReason

__all__ = ["DecodedBatch", "LabelUse", "RecordDecoder", "RejectReason", "Rejection"]

Rows: TypeAlias = npt.NDArray[np.float64]

_NUMBERS = {int, float}


class LabelUse(StrEnum):
    """Whether a record without a valid label is of use: a trainer requires one, a scorer does not."""

    REQUIRED = auto()
    OPTIONAL = auto()


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """What a batch held.

    Attributes:
        rows: [n, features], float64, in the order of the batch.
        accepted: [n], int64; where in the batch each row came from.
        labels: n labels; None only where labels are optional.
        event_times: n times in UTC; None where the pipeline takes Kafka's timestamp.
        rejections: the other records, in the order of the batch.
    """

    rows: Rows
    accepted: npt.NDArray[np.int64]
    labels: list[Label | None]
    event_times: list[datetime | None]
    rejections: list[Rejection]

    def __len__(self) -> int:
        """Accepted records."""
        return len(self.labels)


@dataclass(slots=True)
class _Candidate:
    """A record that parsed, with its features still as JSON gave them."""

    index: int
    features: list[Any]
    label: Label | None
    event_time: datetime | None


class RecordDecoder:
    """Decodes the records that `source` describes."""

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._names = source.features.names if isinstance(source.features, ObjectFeatures) else None

    def decode_batch(
        self, values: Sequence[bytes | None], *, label: LabelUse = LabelUse.REQUIRED
    ) -> DecodedBatch:
        """Decode the values of a batch of records; nothing in them raises.

        Args:
            values: the records' values as Kafka gave them; None is a tombstone.
            label: what becomes of a record whose label is missing or no class.
        """
        candidates: list[_Candidate] = []
        rejections: list[Rejection] = []
        for index, value in enumerate(values):
            try:
                candidates.append(self._candidate(index, value, label))
            except RecordFault as fault:
                rejections.append(fault.at(index))
        accepted, rows = self._matrix(candidates, rejections)
        rejections.sort(key=lambda rejection: rejection.index)
        return DecodedBatch(
            rows=rows,
            accepted=np.fromiter((item.index for item in accepted), dtype=np.int64, count=len(accepted)),
            labels=[item.label for item in accepted],
            event_times=[item.event_time for item in accepted],
            rejections=rejections,
        )

    def _candidate(self, index: int, value: bytes | None, label: LabelUse) -> _Candidate:
        document = self._parse(value)
        return _Candidate(
            index, self._features(document), self._label(document, label), self._event_time(document)
        )

    def _parse(self, value: bytes | None) -> dict[str, Any]:
        if value is None:
            raise RecordFault(RejectReason.NO_VALUE, "the record has a key only")
        limit = self._source.max_record_bytes
        if len(value) > limit:
            raise RecordFault(RejectReason.RECORD_TOO_LARGE, f"{len(value)} bytes, {limit} are allowed")
        try:
            document = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise explain_invalid_json(value, str(error)) from None
        if not isinstance(document, dict):
            raise RecordFault(RejectReason.NOT_AN_OBJECT, f"the record is {_kind(document)}")
        return document

    def _features(self, document: dict[str, Any]) -> list[Any]:
        features = self._source.features
        found = document.get(features.field)
        if found is None:
            raise RecordFault(RejectReason.MISSING_FIELD, f"no field {features.field!r}")
        if self._names is not None:
            return self._named_features(found, self._names)
        if not isinstance(found, list):
            raise RecordFault(RejectReason.WRONG_TYPE, f"{features.field!r} is {_kind(found)}, not an array")
        if len(found) != features.width:
            raise RecordFault(
                RejectReason.WRONG_LENGTH,
                f"{features.field!r} has {len(found)} numbers, {features.width} expected",
            )
        return found

    def _named_features(self, found: Any, names: tuple[str, ...]) -> list[Any]:
        field = self._source.features.field
        if not isinstance(found, dict):
            raise RecordFault(RejectReason.WRONG_TYPE, f"{field!r} is {_kind(found)}, not an object")
        try:
            return [found[name] for name in names]
        except KeyError as error:
            raise RecordFault(RejectReason.MISSING_FIELD, f"no field '{field}.{error.args[0]}'") from None

    def _label(self, document: dict[str, Any], use: LabelUse) -> Label | None:
        spec = self._source.label
        found = document.get(spec.field)
        index = spec.index_of(found)
        if index is not None:
            return spec.classes[index]
        if use is LabelUse.OPTIONAL:
            return None
        if found is None:
            raise RecordFault(RejectReason.MISSING_FIELD, f"no field {spec.field!r}")
        raise RecordFault(RejectReason.BAD_LABEL, f"{spec.field!r} is {_shown(found)}, which is no class")

    def _event_time(self, document: dict[str, Any]) -> datetime | None:
        field = self._source.event_time
        if field is None:
            return None
        found = document.get(field)
        if found is None:
            raise RecordFault(RejectReason.MISSING_FIELD, f"no field {field!r}")
        moment = parse_event_time(found)
        if moment is None:
            raise RecordFault(
                RejectReason.BAD_EVENT_TIME,
                f"{field!r} is {_shown(found)}; ISO 8601, or seconds or milliseconds since 1970 expected",
            )
        return moment

    def _matrix(
        self, candidates: list[_Candidate], rejections: list[Rejection]
    ) -> tuple[list[_Candidate], Rows]:
        """One array for the whole batch; only a batch with a bad number in it is gone through row by row."""
        if not _all_numbers(candidates):
            candidates = self._without_faults(candidates, rejections, self._require_numbers)
        rows = _to_rows(candidates, self._source.features.width)
        if not self._within_bounds(rows):
            candidates = self._without_faults(candidates, rejections, self._require_bounds)
            rows = _to_rows(candidates, self._source.features.width)
        return candidates, rows

    def _without_faults(
        self, candidates: list[_Candidate], rejections: list[Rejection], check: Any
    ) -> list[_Candidate]:
        good = []
        for candidate in candidates:
            try:
                check(candidate.features)
            except RecordFault as fault:
                rejections.append(fault.at(candidate.index))
            else:
                good.append(candidate)
        return good

    def _within_bounds(self, rows: Rows) -> bool:
        features = self._source.features
        if not rows.size:
            return True
        low, high = rows.min(), rows.max()  # NaN when there is one
        return bool(
            np.isfinite(low)
            and np.isfinite(high)
            and (features.minimum is None or low >= features.minimum)
            and (features.maximum is None or high <= features.maximum)
        )

    def _require_numbers(self, features: list[Any]) -> None:
        for position, value in enumerate(features):
            if type(value) not in _NUMBERS:
                name = self._source.features.names[position]
                raise RecordFault(RejectReason.NOT_A_NUMBER, f"{name} is {_shown(value)}")

    def _require_bounds(self, features: list[float]) -> None:
        spec = self._source.features
        for position, value in enumerate(features):
            if not np.isfinite(float(value)):
                raise RecordFault(RejectReason.NOT_FINITE, f"{spec.names[position]} is {value}")
            below = spec.minimum is not None and value < spec.minimum
            above = spec.maximum is not None and value > spec.maximum
            if below or above:
                raise RecordFault(
                    RejectReason.OUT_OF_RANGE,
                    f"{spec.names[position]} is {value}, {_bounds(spec.minimum, spec.maximum)} expected",
                )


def _all_numbers(candidates: list[_Candidate]) -> bool:
    # bool is a subclass of int and numpy reads "3" as 3.0: only the exact types tell
    return set(map(type, chain.from_iterable(item.features for item in candidates))) <= _NUMBERS


def _to_rows(candidates: list[_Candidate], width: int) -> Rows:
    numbers = chain.from_iterable(item.features for item in candidates)
    flat = np.fromiter(numbers, dtype=np.float64, count=len(candidates) * width)
    return flat.reshape(len(candidates), width)


def _bounds(minimum: float | None, maximum: float | None) -> str:
    if minimum is None:
        return f"at most {maximum:g}"
    return f"at least {minimum:g}" if maximum is None else f"{minimum:g} to {maximum:g}"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:40]}…"  # noqa: PLR2004 - enough to recognise it by
