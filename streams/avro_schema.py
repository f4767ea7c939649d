"""The Avro schema that a pipeline names: read, and held to what the pipeline takes from a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from ferryline.registry.errors import UsageError
from ferryline.registry.extras import Extra, require_extra

_NUMBERS = ("int", "long", "float", "double")


def read_schema(path: Path, *, where: str) -> str:
    """The text of a schema file.

    Args:
        path: the file.
        where: the key that names it, for messages.

    Raises:
        UsageError: it cannot be read or is no Avro schema, or fastavro is not installed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{where}: {path} cannot be read ({error}); name a file beside the pipeline's"
        ) from error
    _require_schema(text, f"{where}: {path}")
    return text


class AvroFields:
    """The fields of the records that a schema describes.

    Args:
        text: the schema, which fastavro has accepted.

    Raises:
        ValueError: it is no record.
    """

    def __init__(self, text: str) -> None:
        from fastavro.schema import parse_schema  # only pipelines with Avro need it

        self._named: dict[str, Any] = {}
        self._record = next(self._branches(parse_schema(orjson.loads(text), self._named), "record"), None)
        if self._record is None:
            raise ValueError("the schema is no record")

    def require(self, name: str) -> Any:
        """Returns the type of a field.

        Raises:
            ValueError: there is no such field.
        """
        return _field_of(self._record, name, "the schema")

    def require_array_of_numbers(self, name: str) -> None:
        """Return when a field may be an array of numbers.

        Raises:
            ValueError: it may not, or there is no such field.
        """
        arrays = list(self._branches(self.require(name), "array"))
        if not any(self._may_be_number(array["items"]) for array in arrays):
            raise ValueError(f"the schema's field {name!r} is no array of numbers")

    def require_numbers_of(self, name: str, members: Sequence[str]) -> None:
        """Return when a field may be a record, or a map, with numbers called `members`.

        Raises:
            ValueError: it may not, or there is no such field.
        """
        kind = self.require(name)
        if any(self._may_be_number(found["values"]) for found in self._branches(kind, "map")):
            return
        faults = [self._fault(record, name, members) for record in self._branches(kind, "record")]
        if not faults:
            raise ValueError(f"the schema's field {name!r} is neither a record nor a map of numbers")
        if all(faults):
            raise ValueError(faults[0])

    def _fault(self, record: Any, name: str, members: Sequence[str]) -> str:
        """Why a record has no numbers called `members`; empty where it has."""
        for member in members:
            try:
                kind = _field_of(record, member, f"the schema's field {name!r}")
            except ValueError as error:
                return str(error)
            if not self._may_be_number(kind):
                return f"the schema's field '{name}.{member}' is no number"
        return ""

    def _may_be_number(self, kind: Any) -> bool:
        return any(True for number in _NUMBERS for _ in self._branches(kind, number))

    def _branches(self, kind: Any, wanted: str) -> Iterator[Any]:
        """The types called `wanted` that a type is or may be; a logical type may make it another one."""
        if isinstance(kind, list):
            for each in kind:
                yield from self._branches(each, wanted)
        elif isinstance(kind, str) and kind in self._named:
            yield from self._branches(self._named[kind], wanted)
        elif kind == wanted or (
            isinstance(kind, dict) and kind["type"] == wanted and not _is_converted(kind)
        ):
            yield kind


def _is_converted(kind: Mapping[str, Any]) -> bool:
    """Whether fastavro reads a type as something else by its logical type; it ignores unknown ones."""
    from fastavro.read import LOGICAL_READERS

    return f"{kind['type']}-{kind.get('logicalType')}" in LOGICAL_READERS


def _field_of(record: Any, name: str, where: str) -> Any:
    for field in record["fields"]:
        if field["name"] == name:
            return field["type"]
    there = ", ".join(field["name"] for field in record["fields"])
    raise ValueError(f"{where} has no field {name!r}, its fields are {there}")


def _require_schema(text: str, where: str) -> None:
    require_extra(Extra.FLINK, f"{where}: Avro", ["fastavro"])
    import fastavro  # only pipelines with Avro need it

    try:
        fastavro.parse_schema(orjson.loads(text))
    except Exception as error:  # fastavro's errors share no base class
        raise UsageError(f"{where} is no Avro schema: {error}") from error
