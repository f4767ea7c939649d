"""The Avro schema that a pipeline names: read, and held to what the pipeline takes from a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from ferryline.registry.errors import UsageError
from ferryline.registry.extras import Extra, require_extra


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


def require_avro_fields(text: str, fields: Sequence[str]) -> None:
    """Return when the schema is a record with all `fields`.

    Raises:
        ValueError: it is not.
    """
    schema = orjson.loads(text)
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("the schema is no record")
    there = [field["name"] for field in schema["fields"]]
    missing = [name for name in fields if name not in there]
    if missing:
        raise ValueError(f"the schema has no field {missing[0]!r}, its fields are {', '.join(there)}")


def _require_schema(text: str, where: str) -> None:
    require_extra(Extra.FLINK, f"{where}: Avro", ["fastavro"])
    import fastavro  # only pipelines with Avro need it

    try:
        fastavro.parse_schema(orjson.loads(text))
    except Exception as error:  # fastavro's errors share no base class
        raise UsageError(f"{where} is no Avro schema: {error}") from error
