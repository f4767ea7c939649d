"""Store wrappers that fail, lie, count or watch, for tests of what is built on stores.

Each does one thing and takes any store, so they are put around one another:
`Recorder(FaultyStore(StaleStore(MemoryStore()), faults))`.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, StrEnum, auto
from typing import TypeVar

from ferryline.registry.errors import StoreDeniedError, StoreUnreachableError
from ferryline.registry.stores import Listed, ObjectMissingError, Store, Stored
from ferryline.registry.stores.memory import MemoryStore

_T = TypeVar("_T")


class Verb(StrEnum):
    """What one asks of a store."""

    GET = "get"
    GET_IF_CHANGED = "get_if_changed"
    PUT_IF_ABSENT = "put_if_absent"
    PUT = "put"
    PUT_IF_UNCHANGED = "put_if_unchanged"
    LIST = "list"
    FOLDERS = "folders"
    DELETE = "delete"


class Wrapper:
    """A store that passes every request on; what a subclass does not change stays honest."""

    def __init__(self, inner: Store) -> None:
        self.url = inner.url
        self.inner = inner

    def get(self, key: str) -> Stored:
        return self.inner.get(key)

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        return self.inner.get_if_changed(key, etag)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self.inner.put_if_absent(key, data)

    def put(self, key: str, data: bytes) -> None:
        self.inner.put(key, data)

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        return self.inner.put_if_unchanged(key, data, etag)

    def now(self) -> datetime:
        return self.inner.now()

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        yield from self.inner.list(prefix, after=after)

    def folders(self, prefix: str) -> Iterator[str]:
        yield from self.inner.folders(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)


class Observed(Wrapper):
    """Tells a subclass of every request before it is passed on and after it was answered."""

    def before(self, verb: Verb, key: str) -> None:
        """A request is about to be sent."""

    def after(self, verb: Verb, key: str) -> None:
        """A request was answered, well or ill."""

    def get(self, key: str) -> Stored:
        return self._around(Verb.GET, key, lambda: self.inner.get(key))

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        return self._around(Verb.GET_IF_CHANGED, key, lambda: self.inner.get_if_changed(key, etag))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._around(Verb.PUT_IF_ABSENT, key, lambda: self.inner.put_if_absent(key, data))

    def put(self, key: str, data: bytes) -> None:
        return self._around(Verb.PUT, key, lambda: self.inner.put(key, data))

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        return self._around(Verb.PUT_IF_UNCHANGED, key, lambda: self.inner.put_if_unchanged(key, data, etag))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        # read to its end at once, so that a listing is one request however it is consumed
        yield from self._around(Verb.LIST, prefix, lambda: [*self.inner.list(prefix, after=after)])

    def folders(self, prefix: str) -> Iterator[str]:
        yield from self._around(Verb.FOLDERS, prefix, lambda: [*self.inner.folders(prefix)])

    def delete(self, key: str) -> None:
        return self._around(Verb.DELETE, key, lambda: self.inner.delete(key))

    def _around(self, verb: Verb, key: str, call: Callable[[], _T]) -> _T:
        self.before(verb, key)
        try:
            return call()
        finally:
            self.after(verb, key)


class HidingStore(Wrapper):
    """Says that an object is not there, `times` times, of those whose key contains `part`.

    As a mount that was away, a replica that is behind or a node that fails over does.
    """

    def __init__(self, inner: Store, part: str, times: int = 1) -> None:
        super().__init__(inner)
        self.part = part
        self.times = times

    def get(self, key: str) -> Stored:
        if self.part in key and self.times > 0:
            self.times -= 1
            raise ObjectMissingError(key, self.url)
        return self.inner.get(key)


# --- a store that fails ---------------------------------------------------------------------------


class Fault(Enum):
    """What happens to one request. The log must come through any number of these."""

    NONE = auto()
    LOST_REQUEST = auto()  # the store never saw it
    LOST_ANSWER = auto()  # the store did it, the caller does not learn so
    DONE_TWICE = auto()  # a proxy repeated it: the caller gets the second answer
    ALREADY_THERE = auto()  # the store did it, and says that something lay there before
    DENIED = auto()  # the credentials expired just then; the store did nothing
    LATE = auto()  # the caller gives up; the store does it later, after the caller's next requests


LATE_BY = 3
"""After so many further requests of the same caller a late write is performed."""


class FaultyStore(Wrapper):
    """A store whose requests suffer `faults`, in order, and none once they are used up.

    Args:
        inner: the store itself.
        faults: one for each request, of those that can suffer.
        only: the requests that can suffer; all by default.
    """

    def __init__(
        self, inner: Store, faults: list[Fault] | None = None, *, only: Container[Verb] = frozenset(Verb)
    ) -> None:
        super().__init__(inner)
        self._only = only
        self.down = False
        self.requests = 0
        self._faults = iter(faults or ())
        self._late: list[tuple[int, Callable[[], object]]] = []

    def get(self, key: str) -> Stored:
        self._suffer(Verb.GET)
        return self.inner.get(key)

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        self._suffer(Verb.GET_IF_CHANGED)
        return self.inner.get_if_changed(key, etag)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        fault = self._next(Verb.PUT_IF_ABSENT)
        if fault is Fault.LATE:
            self._late.append((self.requests + LATE_BY, lambda: self.inner.put_if_absent(key, data)))
        _give_up(fault)
        created = self.inner.put_if_absent(key, data)
        if fault is Fault.LOST_ANSWER:
            raise StoreUnreachableError("no answer")
        if fault is Fault.ALREADY_THERE:
            return False
        return self.inner.put_if_absent(key, data) if fault is Fault.DONE_TWICE else created

    def put(self, key: str, data: bytes) -> None:
        fault = self._next(Verb.PUT)
        if fault is Fault.LATE:  # the one reordering that a log survives and a pointer does not
            self._late.append((self.requests + LATE_BY, lambda: self.inner.put(key, data)))
        _give_up(fault)
        self.inner.put(key, data)
        if fault is Fault.LOST_ANSWER:
            raise StoreUnreachableError("no answer")

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        fault = self._next(Verb.PUT_IF_UNCHANGED)
        if fault is Fault.LATE:
            self._late.append((self.requests + LATE_BY, lambda: self.inner.put_if_unchanged(key, data, etag)))
        _give_up(fault)
        replaced = self.inner.put_if_unchanged(key, data, etag)
        if fault is Fault.LOST_ANSWER:
            raise StoreUnreachableError("no answer")
        return self.inner.put_if_unchanged(key, data, etag) if fault is Fault.DONE_TWICE else replaced

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        self._suffer(Verb.LIST)
        yield from self.inner.list(prefix, after=after)

    def folders(self, prefix: str) -> Iterator[str]:
        self._suffer(Verb.FOLDERS)
        yield from self.inner.folders(prefix)

    def delete(self, key: str) -> None:
        self._suffer(Verb.DELETE)
        self.inner.delete(key)

    def settle(self) -> None:
        """Perform what is still under way, as a network does in the end."""
        late, self._late = self._late, []
        for _, perform in late:
            perform()

    def _suffer(self, verb: Verb) -> None:
        fault = self._next(verb)
        _give_up(fault)
        if fault is Fault.LOST_ANSWER:
            raise StoreUnreachableError("no answer")

    def _next(self, verb: Verb) -> Fault:
        self.requests += 1
        due = [perform for when, perform in self._late if when <= self.requests]
        self._late = [(when, perform) for when, perform in self._late if when > self.requests]
        for perform in due:
            perform()
        if self.down:
            return Fault.LOST_REQUEST
        return next(self._faults, Fault.NONE) if verb in self._only else Fault.NONE


def _give_up(fault: Fault) -> None:
    if fault in {Fault.LOST_REQUEST, Fault.LATE}:
        raise StoreUnreachableError("no answer")
    if fault is Fault.DENIED:
        raise StoreDeniedError("the credentials expired")


# --- stores that lie ------------------------------------------------------------------------------


class Damage(Enum):
    """What is wrong with one body."""

    NONE = auto()
    FLIPPED = auto()  # one bit of it
    CUT = auto()  # its second half is missing
    EMPTY = auto()
    DROPPED = auto()  # as a write: it is not kept at all; as an answer: empty

    def done_to(self, data: bytes, where: int) -> bytes:
        """`data` with this damage; `where` chooses the bit."""
        match self:
            case Damage.NONE:
                return data
            case Damage.CUT:
                return data[: len(data) // 2]
            case Damage.EMPTY | Damage.DROPPED:
                return b""
            case Damage.FLIPPED:
                damaged = bytearray(data)
                if damaged:
                    byte, bit = divmod(where % (len(damaged) * 8), 8)
                    damaged[byte] ^= 1 << bit
                return bytes(damaged)


@dataclass(frozen=True, slots=True)
class Harm:
    """A damage and the bit it hits, where it is a flip."""

    damage: Damage
    where: int = 0

    def __call__(self, data: bytes) -> bytes:
        return self.damage.done_to(data, self.where)


class DamagedReads(Wrapper):
    """A store that holds what it was given, and whose answers come damaged as `harms` say, in order."""

    def __init__(self, inner: Store, harms: list[Harm]) -> None:
        super().__init__(inner)
        self._harms = iter(harms)

    def get(self, key: str) -> Stored:
        return self._harm(self.inner.get(key))

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        found = self.inner.get_if_changed(key, etag)
        return None if found is None else self._harm(found)

    def _harm(self, stored: Stored) -> Stored:
        return replace(stored, data=next(self._harms, Harm(Damage.NONE))(stored.data))


class DamagedWrites(Wrapper):
    """A store that keeps other bytes than it was given, as `harms` say, and acknowledges them."""

    def __init__(self, inner: Store, harms: list[Harm]) -> None:
        super().__init__(inner)
        self._harms = iter(harms)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        harm = self._next()
        if harm.damage is Damage.DROPPED:
            return missing(self.inner, key)
        return self.inner.put_if_absent(key, harm(data))

    def put(self, key: str, data: bytes) -> None:
        harm = self._next()
        if harm.damage is not Damage.DROPPED:
            self.inner.put(key, harm(data))

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        harm = self._next()
        return harm.damage is Damage.DROPPED or self.inner.put_if_unchanged(key, harm(data), etag)

    def _next(self) -> Harm:
        return next(self._harms, Harm(Damage.NONE))


class StaleStore(Wrapper):
    """A store whose reads and listings show the past where `stale` says so, in order; writes are honest.

    The past is what the store held when `remember` was last called.
    """

    def __init__(self, inner: MemoryStore, stale: list[bool]) -> None:
        super().__init__(inner)
        self._now = inner
        self._past = MemoryStore(inner.url)
        self._stale = iter(stale)

    def remember(self) -> None:
        """From now on the past is this moment."""
        past = MemoryStore(self.url)
        with self._now._lock:
            past._objects = copy.copy(self._now._objects)
        self._past = past

    def get(self, key: str) -> Stored:
        return self._shown().get(key)

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        return self._shown().get_if_changed(key, etag)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        yield from self._shown().list(prefix, after=after)

    def folders(self, prefix: str) -> Iterator[str]:
        yield from self._shown().folders(prefix)

    def _shown(self) -> MemoryStore:
        return self._past if next(self._stale, False) else self._now


# --- stores that watch ----------------------------------------------------------------------------


class CountingStore(Observed):
    """Counts requests by verb."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.calls: Counter[Verb] = Counter()
        self.listed = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """All requests so far."""
        return self.calls.total()

    def before(self, verb: Verb, key: str) -> None:
        with self._lock:
            self.calls[verb] += 1

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for listed in super().list(prefix, after=after):
            self.listed += 1
            yield listed

    def reset(self) -> None:
        """Count from nothing again."""
        self.calls.clear()
        self.listed = 0


class Recorder(Wrapper):
    """Keeps what its user offered to put-if-absent, by key, whatever came of it."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.offered: dict[str, list[bytes]] = {}

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.offered.setdefault(key, []).append(data)
        return self.inner.put_if_absent(key, data)


class SteppingStore(Observed):
    """Calls `act` at step number `at`: each request has a step before it and one after it, from 1."""

    def __init__(self, inner: Store, at: int, act: Callable[[], None]) -> None:
        super().__init__(inner)
        self._at = at
        self._act = act
        self.steps = 0

    def before(self, verb: Verb, key: str) -> None:
        self._step()

    def after(self, verb: Verb, key: str) -> None:
        self._step()

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self._at:
            self._act()


def missing(store: Store, key: str) -> bool:
    """Whether `store` holds nothing under `key`."""
    try:
        store.get(key)
    except ObjectMissingError:
        return True
    return False
