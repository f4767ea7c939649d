"""What a record that is a document (JSON, Avro) must hold, rule by rule, with a reason for each breach."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from ferryline.registry.documents import Label
from ferryline.streams.decoded import LabelUse
from ferryline.streams.event_time import parse_event_time
from ferryline.streams.pipeline import ObjectFeatures, SourceSpec
from ferryline.streams.rejections import RecordFault, RejectReason

NUMBERS = frozenset({int, float})
_SHOWN = 40


def require_document(document: object) -> dict[str, Any]:
    """The document.

    Raises:
        RecordFault: it is another kind of value.
    """
    if not isinstance(document, dict):
        raise RecordFault(RejectReason.NOT_AN_OBJECT, f"the record is {_kind(document)}")
    return document


def read_features(document: dict[str, Any], source: SourceSpec) -> list[Any]:
    """The features in the order of the model: as many as it takes, each a number, not yet held to its bounds.

    Raises:
        RecordFault: they are missing, of another form, or no numbers.
    """
    features = source.features
    found = document.get(features.field)
    if found is None:
        raise RecordFault(RejectReason.MISSING_FIELD, f"no field {features.field!r}")
    if isinstance(features, ObjectFeatures):
        numbers = _named(found, features)
    else:
        numbers = _listed(found, features.field, features.width)
    for position, value in enumerate(numbers):
        if type(value) not in NUMBERS:  # bool is a subclass of int, and no number here
            raise RecordFault(RejectReason.NOT_A_NUMBER, f"{features.names[position]} is {_shown(value)}")
    return numbers


def read_label(document: dict[str, Any], source: SourceSpec, use: LabelUse) -> Label | None:
    """The label.

    Raises:
        RecordFault: there is none that is a class, where one is required.
    """
    spec = source.label
    found = document.get(spec.field)
    index = spec.index_of(found)
    if index is not None:
        return spec.classes[index]
    if use is LabelUse.OPTIONAL:
        return None
    if found is None:
        raise RecordFault(RejectReason.MISSING_FIELD, f"no field {spec.field!r}")
    raise RecordFault(RejectReason.BAD_LABEL, f"{spec.field!r} is {_shown(found)}, which is no class")


def read_event_time(document: dict[str, Any], source: SourceSpec) -> datetime | None:
    """The event time in UTC, None where the pipeline takes Kafka's timestamp.

    Raises:
        RecordFault: it is missing or names no moment.
    """
    field = source.event_time
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


def _listed(found: Any, field: str, width: int) -> list[Any]:
    if not isinstance(found, list):
        raise RecordFault(RejectReason.WRONG_TYPE, f"{field!r} is {_kind(found)}, not an array")
    if len(found) != width:
        raise RecordFault(RejectReason.WRONG_LENGTH, f"{field!r} has {len(found)} numbers, {width} expected")
    return found


def _named(found: Any, features: ObjectFeatures) -> list[Any]:
    if not isinstance(found, dict):
        raise RecordFault(RejectReason.WRONG_TYPE, f"{features.field!r} is {_kind(found)}, not an object")
    try:
        return [found[name] for name in features.names]
    except KeyError as error:
        raise RecordFault(
            RejectReason.MISSING_FIELD, f"no field '{features.field}.{error.args[0]}'"
        ) from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    try:
        text = orjson.dumps(value, default=repr).decode()
    except (TypeError, RecursionError):  # nested deeper than it writes, though not deeper than it reads
        return _kind(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
