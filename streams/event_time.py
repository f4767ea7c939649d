"""When a record's event happened, as people and programs write it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_MILLISECONDS_FROM = 1e11
"""Epoch numbers from here on are milliseconds: as seconds they would lie beyond the year 5138."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)


def parse_event_time(value: Any) -> datetime | None:
    """The moment in UTC that `value` names, None where it names none.

    Args:
        value: ISO 8601 or `YYYY-mm-dd HH:MM:SS[.fff]` (without an offset: UTC), seconds or milliseconds
            since 1970, or a moment of Avro's (likewise).
    """
    try:
        if isinstance(value, str):
            return _from_text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
        if isinstance(value, datetime):
            return _in_utc(value)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def moment_at(milliseconds: int) -> datetime | None:
    """The moment so many milliseconds after the beginning of 1970 in UTC; None beyond the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def nearest_moment(milliseconds: int) -> datetime:
    """The same; the first or the last millisecond that a datetime has, beyond those years."""
    return moment_at(milliseconds) or (_FIRST if milliseconds < 0 else _LAST)


def _from_text(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    try:
        return datetime.fromisoformat(text + "Z")  # read twice, which takes a third of what `replace` takes
    except ValueError:  # a date alone takes no offset
        return _in_utc(moment)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
