"""How results reach a person (a table) or a script (JSON), always on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from registry.documents import utc_now


def print_json(value: Any) -> None:
    """One JSON document, indented, with a newline at its end."""
    try:
        data = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, which a foreign document may hold
        data = json.dumps(value, default=_json_types, indent=2).encode() + b"\n"
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table with left-aligned text columns; plain text where standard output is no terminal."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(text) for text in row))
    _console().print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, _cell(value))
    _console().print(table)


def note(text: str) -> None:
    """A remark for the person at the terminal, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(_cell(text))


def ago(moment: datetime | None) -> str:
    """How long ago, as people say it."""
    if moment is None:
        return "-"
    seconds = max(0, int((utc_now() - moment).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def size_of(size: int) -> str:
    """Bytes in the unit that fits."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":  # noqa: PLR2004 - binary units
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError(size)


def short(digest: str | None) -> str:
    """Enough of a digest to tell it from its neighbours."""
    return digest.removeprefix("sha256:")[:12] if digest else "-"


def printable(text: str) -> str:
    """`text` in one line without what would steer a terminal; others wrote the reasons and errors shown."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split())
    )


def _cell(text: str) -> Text:
    return Text(printable(text))


def _console() -> Console:
    # a pipe has no width: without one given, rich would fold rows at 80 columns and break `grep`
    width = None if sys.stdout.isatty() else 4096
    return Console(highlight=False, width=width)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _json_types(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else _plain(value)
