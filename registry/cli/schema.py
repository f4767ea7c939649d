"""`python -m ferryline.registry.cli.schema` prints docs/json-output.md; with a command, its schema."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import TypeAdapter

from ferryline.registry.cli.shapes import SHAPES

_INTRODUCTION = """\
# What `-o json` prints

<!-- made by `python -m ferryline.registry.cli.schema`; a test compares -->

Every command takes `-o json`. It prints one JSON document on standard output (`watch`: one a line) and
nothing else there: progress, remarks and errors go to standard error as plain text, and the exit code tells
a script what happened. Where a command fails, standard output stays empty, but for three that say first what
they found: `list`, which leaves out what cannot be read and exits 6, `doctor`, which shows each probe, and
`verify`, which shows each finding.
`promote --wait` and `rollback --wait` print the entry when it is written, before they wait.

Times are ISO 8601 with a time zone. Digests are `sha256:<hex>`. A field may be added in any release; none is
renamed, removed or given another meaning without a new major version. Documents of the registry (manifests,
entries) carry `schema_version` and keep fields that a newer program wrote.

`python -m ferryline.registry.cli.schema COMMAND` prints the JSON Schema of one.
"""


def document() -> str:
    """The text of docs/json-output.md."""
    types: dict[str, Any] = {}
    lines = [_INTRODUCTION, "## By command\n", "| Command | Prints |", "|---|---|"]
    for command, shape in SHAPES.items():
        schema = TypeAdapter(shape).json_schema(mode="serialization")
        types |= schema.pop("$defs", {})
        lines.append(f"| `ferry {command} -o json` | {_type(schema, types)} |")
    lines.append("\n## Types\n")
    for name in sorted(types):
        lines += _described(name, types[name], types)
    return "\n".join(lines).rstrip() + "\n"


def schema_of(command: str) -> dict[str, Any]:
    """The JSON Schema of what a command prints.

    Raises:
        KeyError: there is no such command.
    """
    return TypeAdapter(SHAPES[command]).json_schema(mode="serialization")


def _described(name: str, schema: dict[str, Any], types: dict[str, Any]) -> Iterable[str]:
    yield f"### {name}\n"
    about = schema.get("description", "").partition("\n")[0]
    if about:
        yield f"{about}\n"
    if "enum" in schema:
        yield f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.\n"
        return
    yield "| Field | Type | |"
    yield "|---|---|---|"
    for field, told in schema.get("properties", {}).items():
        yield f"| `{field}` | {_type(told, types)} | {told.get('description', '')} |"
    yield ""


def _type(schema: dict[str, Any], types: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "properties" in schema:
        types[schema["title"]] = schema
        return _link(schema["title"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part, types) for part in schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    return _plain_type(schema, types)


def _plain_type(schema: dict[str, Any], types: dict[str, Any]) -> str:
    kind = schema.get("type")
    inner = schema.get("items") if kind == "array" else schema.get("additionalProperties")
    if kind in {"array", "object"}:
        word = "list" if kind == "array" else "object"
        return f"{word} of {_type(inner, types)}" if isinstance(inner, dict) else word
    return "time" if schema.get("format") == "date-time" else str(kind or "any")


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


if __name__ == "__main__":
    wanted = " ".join(sys.argv[1:])
    if wanted and wanted not in SHAPES:
        sys.exit(f"error: no command {wanted!r}; there are {', '.join(SHAPES)}")
    text = orjson.dumps(schema_of(wanted), option=orjson.OPT_INDENT_2).decode() if wanted else document()
    sys.stdout.write(text)
