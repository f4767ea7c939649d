"""Who is told how a long transfer goes. A store reports, a front end shows; neither knows the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

WORTH_SHOWING = 4 << 20
"""Bytes; a smaller transfer is over before anyone could read how far it is."""

Observer = Callable[[int, int], None]
"""Told the bytes moved so far and the bytes in all."""

_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Tell `observer` of every large transfer that this thread makes meanwhile."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def observer_of(size: int) -> Observer | None:
    """Who wants to hear of a transfer of `size` bytes, None where nobody does."""
    return _observer.get() if size >= WORTH_SHOWING else None
