"""When a record's event happened, as people and programs write it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_MILLISECONDS_FROM = 1e11
"""Epoch numbers from here on are milliseconds: as seconds they would lie beyond the year 5138."""


def parse_event_time(value: Any) -> datetime | None:
    """The moment in UTC that `value` names, None where it names none.

    Args:
        value: ISO 8601 or `YYYY-mm-dd HH:MM:SS[.fff]` (without an offset: UTC), or seconds or milliseconds
            since 1970.
    """
    try:
        if isinstance(value, str):
            return _from_text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _from_text(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
