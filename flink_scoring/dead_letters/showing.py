"""Letters and reports as people and scripts read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ferryline.flink_scoring.dead_letters.letters import StoredLetter, value_left_behind
from ferryline.flink_scoring.dead_letters.summary import ReasonSummary
from ferryline.flink_scoring.dead_letters.verdicts import Report
from ferryline.registry.cli.output import ago, note, print_fields, print_gap, print_json, print_table, size_of
from ferryline.streams.deadletters import DeadLetter

_SHOWN = 4096
_ROW = 16


def show_summary(topic: str, summaries: Sequence[ReasonSummary]) -> None:
    """A line per reason."""
    columns = (
        "reason",
        "letters",
        "waiting",
        "replayed",
        "failed again",
        "oldest",
        "newest",
        "newest detail",
    )
    rows = [
        (
            item.reason,
            str(item.letters),
            str(item.waiting),
            str(item.replayed),
            str(item.again),
            ago(item.oldest),
            ago(item.newest),
            item.detail,
        )
        for item in summaries
    ]
    print_table(columns, rows, title=f"{topic}: {sum(item.letters for item in summaries)} dead letters")


def show_letters(letters: Sequence[StoredLetter]) -> None:
    """A line per letter."""
    columns = ("letter", "written", "reason", "source", "key", "bytes", "replays", "detail")
    rows = [_row(stored, stored.letter) for stored in letters if stored.letter is not None]
    print_table(columns, rows)


def _row(stored: StoredLetter, letter: DeadLetter) -> tuple[str, ...]:
    size = "left behind" if value_left_behind(letter) else str(len(letter.value or b""))
    return (
        stored.place,
        _moment(stored.written_at),
        letter.reason,
        _source(letter),
        _brief(letter.key),
        size,
        str(letter.replays),
        letter.detail,
    )


def show_letter(stored: StoredLetter, letter: DeadLetter, value: bytes | None) -> None:
    """All of one letter; `value` is the record's, wherever it was found."""
    fields = [
        ("letter", stored.place),
        ("written", _moment(stored.written_at)),
        ("reason", letter.reason),
        ("detail", letter.detail),
        ("pipeline", letter.pipeline),
        ("source", _source(letter)),
        ("timestamp", _moment(letter.timestamp) if letter.timestamp else "-"),
        ("replays", str(letter.replays)),
        ("key", _brief(letter.key)),
    ]
    print_fields([*fields, *((f"header {name}", _brief(text)) for name, text in letter.headers)])
    print_gap()
    print_fields(_value_lines(letter, value))


def _value_lines(letter: DeadLetter, value: bytes | None) -> list[tuple[str, str]]:
    where = f", from {_source(letter)}" if value_left_behind(letter) else ""
    if value is None:
        return [("value", "lost: too large to be carried, and gone from its topic" if where else "none")]
    head, rest = value[:_SHOWN], len(value) - _SHOWN
    more = [("…", f"{rest} bytes more; --raw gives all")] if rest > 0 else []
    size = [("value", f"{size_of(len(value))}{where}")]
    text = _as_text(value)
    if text is not None:
        return [*size, ("", text[:_SHOWN]), *more]
    rows = [head[place : place + _ROW] for place in range(0, len(head), _ROW)]
    lines = [(f"{number * _ROW:04x}", f"{row.hex(' '):47}  {_dots(row)}") for number, row in enumerate(rows)]
    return [*size, *lines, *more]


def letter_document(stored: StoredLetter, letter: DeadLetter, value: bytes | None) -> dict[str, Any]:
    """A letter for scripts; bytes are text where they are UTF-8, else hexadecimal."""
    return {
        "partition": stored.partition,
        "offset": stored.offset,
        "written_at": stored.written_at,
        "reason": letter.reason,
        "detail": letter.detail,
        "pipeline": letter.pipeline,
        "source": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        "timestamp": letter.timestamp,
        "replays": letter.replays,
        "key": _bytes_document(letter.key),
        "headers": [{"name": name, "value": _bytes_document(text)} for name, text in letter.headers],
        "value": _bytes_document(value),
        "value_left_behind": value_left_behind(letter),
    }


def show_report(report: Report, *, destination: str, dry_run: bool) -> None:
    """A line per outcome and reason."""
    if not report.counts:
        note(f"no letter waits to go to {destination}")
        return
    rows = [
        (f"would be {verdict}" if dry_run and verdict == "replayed" else str(verdict), reason, str(count))
        for (verdict, reason), count in sorted(report.counts.items())
    ]
    print_table(("outcome", "reason", "letters"), rows, title=f"to {destination}")


def print_report(report: Report, *, destination: str, dry_run: bool) -> None:
    """The same for scripts."""
    outcomes = [
        {"outcome": verdict.name.lower(), "reason": reason, "letters": count}
        for (verdict, reason), count in sorted(report.counts.items())
    ]
    print_json(
        {"destination": destination, "dry_run": dry_run, "stopped": report.stopped, "outcomes": outcomes}
    )


def _source(letter: DeadLetter) -> str:
    return f"{letter.topic}[{letter.partition}]@{letter.offset}"


def _moment(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def _as_text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\t\r\n" for char in text) else None


def _brief(data: bytes | None) -> str:
    if data is None:
        return "-"
    text = _as_text(data)
    return data.hex() if text is None else text


def _dots(row: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)  # noqa: PLR2004 - ASCII


def _bytes_document(data: bytes | None) -> dict[str, str] | None:
    if data is None:
        return None
    text = _as_text(data)
    return {"hex": data.hex()} if text is None else {"text": text}
