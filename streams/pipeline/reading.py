"""From a file or its text to a pipeline, or to one line that says what is wrong in it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ferryline.registry.errors import UsageError
from ferryline.streams.avro_schema import read_schema
from ferryline.streams.pipeline.document import Pipeline


def load_pipeline(path: Path) -> Pipeline:
    """Read a pipeline file.

    Raises:
        UsageError: it cannot be read, is not TOML, or a value in it is wrong; file and key are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; name a pipeline file, for example deploy/pipelines/digits.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    return parse_pipeline(text, where=str(path), folder=path.parent)


def parse_pipeline(text: str, *, where: str, folder: Path = Path()) -> Pipeline:
    """Read the text of a pipeline file.

    Args:
        text: TOML.
        where: names it in messages.
        folder: where the files lie that it names.

    Raises:
        UsageError: as `load_pipeline`.
    """
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # also a number of more digits than Python reads
        raise UsageError(f"{where} is not TOML: {error}") from error
    try:
        _take_in_schema(document.get("source"), where, folder)
        return Pipeline.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [_fault_line(dict(fault)) for fault in faults]
        raise UsageError(f"{where}: " + "; ".join(lines)) from error


def _take_in_schema(source: Any, where: str, folder: Path) -> None:
    """Put the schema itself in the place of its file's name, so that it travels with the pipeline."""
    if isinstance(source, dict) and isinstance(source.get("schema"), str):
        source["schema"] = read_schema(folder / source["schema"], where=f"{where}: source.schema")


_HINTS = {
    "missing": "is missing; add it",
    "extra_forbidden": "is not a key of this table; correct its spelling or remove it",
    "union_tag_not_found": 'needs kind = "array" or kind = "object"',
}


def _fault_line(fault: dict[str, Any]) -> str:
    # the kind of a features table is part of pydantic's path, not of the file's
    parts = [str(part) for part in fault["loc"] if part not in {"array", "object"}]
    parts = [part for part in parts if part not in {"bool", "int", "str"}]
    key = ".".join(parts) or "the file"
    if hint := _HINTS.get(fault["type"]):
        return f"{key} {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float) else ""
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}"
