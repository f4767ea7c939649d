"""How results reach a person (a table) or a script (JSON), always on standard output."""

from __future__ import annotations

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
    sys.stdout.buffer.write(
        orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table with left-aligned text columns; plain text where standard output is no terminal."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _console().print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, Text(value))
    _console().print(table)


def note(text: str) -> None:
    """A remark for the person at the terminal, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text))


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


def _console() -> Console:
    # a pipe has no width: without one given, rich would fold rows at 80 columns and break `grep`
    width = None if sys.stdout.isatty() else 4096
    return Console(highlight=False, width=width)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
