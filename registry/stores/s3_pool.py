"""Connections that tell how a large transfer goes, for a client that offers no progress of its own."""

from __future__ import annotations

import io
from typing import Any

import urllib3

from ferryline.registry import transfer

_CHUNK = 1 << 18


class WatchedPool(urllib3.PoolManager):
    """A connection pool whose large request bodies report how far they are, where someone watches."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **kwargs: Any) -> Any:  # type: ignore[override]  # as PoolManager spells it, not its base
        """Send a request as `urllib3.PoolManager.urlopen` does."""
        body = kwargs.get("body")
        observer = transfer.observer_of(len(body)) if isinstance(body, bytes) else None
        if observer is not None:
            kwargs["body"] = _WatchedBody(body or b"", observer)
        return super().urlopen(method, url, redirect=redirect, **kwargs)


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
