"""How results reach a person (a table) or a script (JSON), always on standard output.

Rich draws tables on a terminal and is imported for nothing else: a pipe, a short answer and an error must
not wait for it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import IO, Any

import orjson
from pydantic import BaseModel

from ferryline.registry.documents import utc_now

_GAP = 2
# delete, the C1 control characters and what turns the writing direction; JSON escapes the others itself
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NARROWEST = 12


def print_json(value: Any) -> None:
    """One JSON document, indented, with a newline at its end."""
    try:
        data = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, which a foreign document may hold
        data = json.dumps(value, default=_json_types, indent=2).encode() + b"\n"
    sys.stdout.buffer.write(inert_json(data))
    sys.stdout.buffer.flush()


def inert_json(data: bytes) -> bytes:
    """The same JSON without what would steer a terminal: it can only stand in texts, which may escape it."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table with left-aligned text columns; plain text where standard output is no terminal."""
    cells = [[printable(text) for text in row] for row in rows]
    if sys.stdout.isatty():
        _print_on_terminal(columns, cells, title)
        return
    lines = [printable(title)] if title else []
    _print([*lines, *_aligned([list(columns), *cells])])


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    pairs = [(name, printable(value)) for name, value in fields]
    width = max((len(name) for name, _ in pairs), default=0) + _GAP
    _print(emphasised(name, sys.stdout) + " " * (width - len(name)) + value for name, value in pairs)


def print_gap() -> None:
    """An empty line between two parts of a result."""
    _print([""])


def note(text: str) -> None:
    """A remark for the person at the terminal, on standard error."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def emphasised(text: str, stream: IO[str]) -> str:
    """`text` in bold where `stream` shows colours."""
    return f"\x1b[1m{text}\x1b[0m" if shows_colours(stream) else text


def shows_colours(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal whose user has not asked for plain text (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, as people say it; `now` is this machine's time by default."""
    if moment is None:
        return "-"
    seconds = max(0, int(((now or utc_now()) - moment).total_seconds()))
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


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _print_on_terminal(columns: Sequence[str], cells: list[list[str]], title: str | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(printable(title), style="italic") if title else None
    table = Table(title=heading, title_justify="left", box=None, header_style="bold", pad_edge=False)
    console = Console(highlight=False)
    # where there is room, the last column alone is folded: names and numbers are read at a glance
    widths = [max(_width(cell) for cell in column) + _GAP for column in zip(columns, *cells, strict=True)]
    roomy = sum(widths[:-1]) + _NARROWEST <= console.width
    for column in columns[:-1]:
        table.add_column(column, overflow="fold", no_wrap=roomy)
    table.add_column(columns[-1], overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _aligned(rows: list[list[str]]) -> list[str]:
    # a pipe has no width, so that nothing is folded and `grep` finds whole rows
    widths = [max(_width(cell) for cell in column) + _GAP for column in zip(*rows, strict=True)]
    return [
        "".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in {"F", "W"})
        for char in text
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _json_types(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else _plain(value)
