"""Store wrappers that fail or cheat, each in one way, for tests of what is built on stores."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from registry.errors import StoreUnreachableError
from registry.stores import Listed, Store, Stored


class Fault(Enum):
    """What happens to one request."""

    NONE = auto()
    LOST_REQUEST = auto()  # the store never saw it
    LOST_ANSWER = auto()  # the store did it, the caller does not learn so
    DONE_TWICE = auto()  # a proxy repeated it: the caller gets the second answer


class FaultyStore:
    """A store whose requests suffer `faults`, in order, and none once they are used up."""

    def __init__(self, inner: Store, faults: list[Fault] | None = None) -> None:
        self.url = inner.url
        self.down = False
        self.requests = 0
        self._inner = inner
        self._faults = iter(faults or ())

    def get(self, key: str) -> Stored:
        self._suffer_read()
        return self._inner.get(key)

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        self._suffer_read()
        return self._inner.get_if_changed(key, etag)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        fault = self._next()
        if fault is Fault.LOST_REQUEST:
            raise StoreUnreachableError("the request was lost")
        created = self._inner.put_if_absent(key, data)
        if fault is Fault.LOST_ANSWER:
            raise StoreUnreachableError("the answer was lost")
        return self._inner.put_if_absent(key, data) if fault is Fault.DONE_TWICE else created

    def put(self, key: str, data: bytes) -> None:
        self._suffer_read()
        self._inner.put(key, data)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        self._suffer_read()
        yield from self._inner.list(prefix, after=after)

    def delete(self, key: str) -> None:
        self._suffer_read()
        self._inner.delete(key)

    def _suffer_read(self) -> None:
        if self._next() in {Fault.LOST_REQUEST, Fault.LOST_ANSWER}:
            raise StoreUnreachableError("no answer")

    def _next(self) -> Fault:
        self.requests += 1
        if self.down:
            return Fault.LOST_REQUEST
        return next(self._faults, Fault.NONE)
