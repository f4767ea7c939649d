"""Batches of records that are documents: a lane for what is as expected, and the rules for all else.

The lane reads a record with as few steps as there are; whatever surprises it sends that one record through
the rules, which accept it after all or say why not. So a bad record costs its own time and not its batch's.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

import numpy as np

from ferryline.registry.documents import Label
from ferryline.streams.bounds import bounds_fault, rows_out_of_bounds
from ferryline.streams.decoded import DecodedBatch, LabelUse
from ferryline.streams.document_rules import (
    NUMBERS,
    read_event_time,
    read_features,
    read_label,
    require_document,
)
from ferryline.streams.event_time import parse_event_time
from ferryline.streams.pipeline import ObjectFeatures, SourceSpec
from ferryline.streams.rejections import RecordFault, Rejection, RejectReason

# what reading a record that is not as expected may raise; simdjson says RuntimeError of a number of 65 bits
_SURPRISES = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RuntimeError, struct.error)
_SEQUENCES = (list, tuple)


class SurpriseError(ValueError):
    """A record is not as the lane expects it; the rules decide."""


class Fields(Protocol):
    """A document's fields, as the lane asks for them."""

    def get(self, name: str, /) -> Any:
        """The value of a field; None where there is none."""
        ...

    def __getitem__(self, name: str, /) -> Any:
        """Likewise; raises KeyError where there is none."""
        ...


Opened: TypeAlias = tuple[Fields, Any]
"""A document, and the numbers of its features as packed native doubles: bytes, or whatever has a buffer."""


class DocumentFormat(ABC):
    """How documents are written."""

    def opener(self, source: SourceSpec) -> Callable[[bytes], Opened]:
        """What opens a record that is as `source` expects; it raises one of `_SURPRISES` at any other."""
        return AsExpected(source, self)

    @abstractmethod
    def parse(self, value: bytes, /) -> Any:
        """The document; raises ValueError where the value is none."""

    @abstractmethod
    def explain(self, value: bytes) -> RecordFault:
        """Why `parse` refused a value."""

    @abstractmethod
    def may_hold_booleans(self, value: bytes) -> bool:
        """Whether there may be a boolean (or another type that passes for a number) in the document."""


class AsExpected:
    """Opens the documents of any format.

    Args:
        source: what a record holds.
        format_: how it is written.
    """

    def __init__(self, source: SourceSpec, format_: DocumentFormat) -> None:
        self._parse = format_.parse
        self._may_hold_booleans = format_.may_hold_booleans
        self._numbers = _numbers_of(source)
        # packing doubles checks what must be checked: so many values, each a number; but True passes for 1
        self._pack = _packer_of(source)

    def __call__(self, value: bytes) -> Opened:
        """The document and its numbers."""
        document = self._parse(value)
        numbers = self._numbers(document)
        if type(numbers) not in _SEQUENCES:
            raise SurpriseError
        if self._may_hold_booleans(value) and not NUMBERS.issuperset(map(type, numbers)):
            raise SurpriseError
        return document, self._pack(*numbers)


# a record that was read: its features as packed native doubles, its label, its event time in UTC
_Read: TypeAlias = tuple[Any, Label | None, datetime | None]


class DocumentDecoder:
    """Decodes documents of one format.

    Args:
        source: what a record holds.
        format_: how it is written.
    """

    def __init__(self, source: SourceSpec, format_: DocumentFormat) -> None:
        self._source = source
        self._format = format_
        self._open = format_.opener(source)
        self._pack = _packer_of(source)
        self._largest = source.max_record_bytes
        self._time_field = source.event_time
        self._label_field = source.label.field
        self._label_type = type(source.label.classes[0])
        self._classes = frozenset(source.label.classes)

    def decode_batch(self, values: Sequence[bytes | None], *, label: LabelUse) -> DecodedBatch:
        """Decode a batch; see `BatchDecoder`."""
        accepted: list[int] = []
        records: list[_Read] = []
        rejections: list[Rejection] = []
        for index, value in enumerate(values):
            try:
                records.append(self._as_expected(value, label))
            except _SURPRISES:
                try:
                    records.append(self._by_the_rules(value, label))
                except RecordFault as fault:
                    rejections.append(fault.at(index))
                    continue
            accepted.append(index)
        return without_rows(self._batch(accepted, records, rejections), self._source)

    def _as_expected(self, value: bytes | None, use: LabelUse) -> _Read:
        """The lane: few calls, since each is a part of what reading a record takes."""
        if value is None or len(value) > self._largest:
            raise SurpriseError
        document, numbers = self._open(value)
        label = document.get(self._label_field)
        if (type(label) is not self._label_type or label not in self._classes) and (
            label is not None or use is LabelUse.REQUIRED
        ):
            raise SurpriseError
        moment = None
        if self._time_field is not None and (moment := parse_event_time(document[self._time_field])) is None:
            raise SurpriseError
        return numbers, label, moment

    def _by_the_rules(self, value: bytes | None, use: LabelUse) -> _Read:
        document = self._require_parsed(require_value(value, self._source))
        numbers = self._pack(*read_features(document, self._source))
        return numbers, read_label(document, self._source, use), read_event_time(document, self._source)

    def _batch(self, accepted: list[int], records: list[_Read], rejections: list[Rejection]) -> DecodedBatch:
        packed, labels, times = zip(*records, strict=True) if records else ((), (), ())
        numbers = np.frombuffer(bytearray().join(packed), dtype=np.float64)
        rows = numbers.reshape(-1, self._source.features.width)
        return DecodedBatch(rows, np.asarray(accepted, dtype=np.int64), list(labels), list(times), rejections)

    def _require_parsed(self, value: bytes) -> dict[str, Any]:
        try:
            document = self._format.parse(value)
        except ValueError:
            raise self._format.explain(value) from None
        return require_document(document)


def require_value(value: bytes | None, source: SourceSpec) -> bytes:
    """The value.

    Raises:
        RecordFault: there is none, or it is larger than the pipeline takes.
    """
    if value is None:
        raise RecordFault(RejectReason.NO_VALUE, "the record has a key only")
    limit = source.max_record_bytes
    if len(value) > limit:
        raise RecordFault(RejectReason.RECORD_TOO_LARGE, f"{len(value)} bytes, {limit} are allowed")
    return value


def _packer_of(source: SourceSpec) -> Callable[..., bytes]:
    """Packs as many numbers as `source` has features, as native doubles."""
    return struct.Struct(f"={source.features.width}d").pack


def _numbers_of(source: SourceSpec) -> Callable[[Any], Any]:
    """What gets the features out of a document; raises, or gives what cannot be packed, where that fails."""
    features, of_field = source.features, itemgetter(source.features.field)
    if not isinstance(features, ObjectFeatures):
        return of_field
    by_name = itemgetter(*features.names)
    if features.width == 1:
        return lambda document: (by_name(of_field(document)),)
    return lambda document: by_name(of_field(document))


def without_rows(batch: DecodedBatch, source: SourceSpec) -> DecodedBatch:
    """The batch with its rows out of bounds turned into rejections; in the order of the batch."""
    bad = rows_out_of_bounds(batch.rows, source.features)
    rejections = list(batch.rejections)
    for row in bad.tolist():
        fault = bounds_fault(batch.rows[row].tolist(), source.features)
        rejections.append(fault.at(int(batch.accepted[row])))
    rejections.sort(key=lambda rejection: rejection.index)
    if not len(bad):
        return batch
    kept = np.delete(np.arange(len(batch)), bad).tolist()
    return batch.taking(kept, rejections)
