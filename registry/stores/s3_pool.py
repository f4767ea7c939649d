"""Connections that tell how a large transfer goes, and the server's time, for a client that tells neither."""

from __future__ import annotations

import io
from datetime import MAXYEAR, UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3

from ferryline.registry import transfer
from ferryline.registry.clocks import elapsed
from ferryline.registry.documents import utc_now

_CHUNK = 1 << 18


class WatchedPool(urllib3.PoolManager):
    """A connection pool that knows the server's time, and tells how far large request bodies are."""

    _told: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The server's time, by its last answer that told it; this machine's before there was one."""
        if self._told is None:
            return utc_now()
        date, at = self._told
        return date + timedelta(seconds=elapsed() - at)

    def urlopen(self, method: str, url: str, redirect: bool = True, **kwargs: Any) -> Any:  # type: ignore[override]  # as PoolManager spells it, not its base
        """Send a request as `urllib3.PoolManager.urlopen` does."""
        body = kwargs.get("body")
        observer = transfer.observer_of(len(body)) if isinstance(body, bytes) else None
        if observer is not None:
            kwargs["body"] = _WatchedBody(body or b"", observer)
        response = super().urlopen(method, url, redirect=redirect, **kwargs)
        self._hear(response.headers.get("date"))
        return response

    def _hear(self, date: str | None) -> None:
        try:
            told = parsedate_to_datetime(date) if date else None
        except (ValueError, OverflowError):
            return
        if told is not None and told.year < MAXYEAR:  # to which nothing could be added
            self._told = (told if told.tzinfo else told.replace(tzinfo=UTC), elapsed())


class _WatchedBody(io.BytesIO):
    """A request body that tells how much of it was taken."""

    def __init__(self, data: bytes, observer: transfer.Observer) -> None:
        super().__init__(data)
        self._size = len(data)
        self._observer = observer

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._observer(self.tell(), self._size)
        return piece


def read_watched(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body of an answer, told piece by piece to whoever watches."""
    size = int(response.headers.get("content-length", 0))
    observer = transfer.observer_of(size)
    if observer is None:
        return response.read()
    pieces, moved = [], 0
    while piece := response.read(_CHUNK):
        pieces.append(piece)
        moved += len(piece)
        observer(moved, size)
    return b"".join(pieces)
