"""The store of a simulation: objects with the store's own times, and each process's troubled way to them."""

from __future__ import annotations

import errno
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from ferryline.registry.errors import StoreDeniedError, StoreUnreachableError
from ferryline.registry.stores import Listed, ObjectMissingError, Stored
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Verb
from tests.simulation.kernel import FOREVER, START, Kernel, Killed, Process

_T = TypeVar("_T")


class Place(StrEnum):
    """Where a trouble hits: a kind of request, or a moment of loading a file."""

    ANY = "any request"
    ENTRY = "a read of an entry"
    MANIFEST = "a read of a manifest"
    BLOB = "a read of a file"
    HEARTBEAT = "a write of a heartbeat"
    WRITE = "a write of an entry"
    GARBAGE = "a request about garbage"
    LOAD = "the load"
    RUN = "the first run"
    JUDGE = "the gate"


class Fault(StrEnum):
    """What goes wrong there, once."""

    LOST_REQUEST = "the request is lost"
    LOST_ANSWER = "the answer is lost"
    DENIED = "the credentials are refused"
    MISSING = "404 for an object that exists"
    SLOW = "it takes long"
    SUSPEND = "the process is suspended before it"
    KILL = "the process is killed before it"
    KILL_AFTER = "the process is killed after it"
    NO_FILES = "no file descriptor is free"
    NO_MEMORY = "no memory is free"
    SIGKILL = "the system ends the gate's child"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault that hits the `skip`-th next request, or load, of its place, from 0, and no other.

    `seconds` is how long it takes, where it is slow or suspended.
    """

    fault: Fault
    place: Place = Place.ANY
    skip: int = 0
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _Due:
    """A trouble, and how many more requests of its place pass before it."""

    trouble: Trouble
    left: int


class WorldStore(MemoryStore):
    """The objects. Who watches is told of every write and deletion as it happens."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__("simulated")
        self._kernel = kernel
        self.modified: dict[str, float] = {}
        self.on_write: Callable[[str, bytes], None] = lambda _key, _data: None
        self.on_delete: Callable[[str], None] = lambda _key: None

    def get(self, key: str) -> Stored:
        try:
            return self._objects[key][0]
        except KeyError:
            raise ObjectMissingError(key, self.url) from None

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for key in sorted(key for key in self._objects if key.startswith(prefix) and key > after):
            moment = START + timedelta(seconds=self.modified[key])
            yield Listed(key, len(self._objects[key][0].data), moment)

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        if not self.has(key) or self._objects[key][0].etag != etag:
            return False
        self.put(key, data)
        return True

    def now(self) -> datetime:
        return START + timedelta(seconds=self._kernel.seconds)

    def delete(self, key: str) -> None:
        if key in self._objects:
            self.on_delete(key)
        super().delete(key)

    def _write(self, key: str, data: bytes) -> None:
        self._writes += 1
        self._objects[key] = (Stored(bytes(data), etag=str(self._writes)), START)
        self.modified[key] = self._kernel.seconds
        self.on_write(key, data)

    def snapshot(self) -> dict[str, tuple[Stored, Any]]:
        """Everything that is there now; also for `restore`."""
        return dict(self._objects)

    def restore(self, objects: dict[str, tuple[Stored, Any]]) -> None:
        """Put a backup in the place of everything; a restored object is as new as the restoring."""
        self._objects = dict(objects)
        self.modified = {
            key: self.modified.get(key, 0.0) if self._kernel.seconds == 0 else self._kernel.seconds
            for key in objects
        }

    def has(self, key: str) -> bool:
        """Whether the object is there."""
        return key in self._objects


class Troubled(Process):
    """A process, its way to the store, and what is still to go wrong with it.

    Attributes:
        hit: when something last went wrong.
        requests: how many it made, by verb and area.
        beat_at: when it last wrote a heartbeat, and `first_beat_at` when it first did.
        looked_at: when it last listed the heartbeats.
    """

    def __init__(self, store: WorldStore, kernel: Kernel, name: str, **more: Any) -> None:
        super().__init__(kernel, name, **more)
        self.url = store.url
        self._store = store
        self._troubles: list[_Due] = []
        self._calm = False
        self.hit = -FOREVER
        self.requests: Counter[str] = Counter()
        self.beat_at = -FOREVER
        self.first_beat_at = FOREVER
        self.looked_at = -FOREVER
        self.on_beat: Callable[[str], None] = lambda _key: None

    def meet(self, troubles: Iterable[Trouble]) -> None:
        """Have these happen too, from now on."""
        self._troubles.extend(_Due(trouble, trouble.skip) for trouble in troubles)

    def calm(self) -> None:
        """Nothing goes wrong any more, and it goes on where it was suspended."""
        self._troubles = []
        self._calm = True
        self.suspended_until = 0.0

    # --- the store's verbs --------------------------------------------------------------------------

    def get(self, key: str) -> Stored:
        return self._ask(Verb.GET, key, lambda: self._store.get(key))

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        return self._ask(Verb.GET, key, lambda: self._store.get_if_changed(key, etag))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._ask(Verb.PUT_IF_ABSENT, key, lambda: self._store.put_if_absent(key, data))

    def put(self, key: str, data: bytes) -> None:
        def write() -> None:
            self._store.put(key, data)
            if key.startswith("consumers/"):
                self.beat_at = self.kernel.seconds
                self.first_beat_at = min(self.first_beat_at, self.beat_at)
                self.on_beat(key)

        self._ask(Verb.PUT, key, write)

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        return self._ask(Verb.PUT, key, lambda: self._store.put_if_unchanged(key, data, etag))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        found = self._ask(Verb.LIST, prefix, lambda: [*self._store.list(prefix, after=after)])
        if prefix.startswith("consumers/"):
            self.looked_at = self.kernel.seconds
        return iter(found)

    def now(self) -> datetime:
        return self._store.now()

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._ask(Verb.FOLDERS, prefix, lambda: [*self._store.folders(prefix)]))

    def delete(self, key: str) -> None:
        self._ask(Verb.DELETE, key, lambda: self._store.delete(key))

    # --- what goes wrong ----------------------------------------------------------------------------

    def _ask(self, verb: Verb, key: str, perform: Callable[[], _T]) -> _T:
        if self.dead:
            raise Killed
        place = _place(verb, key)
        self.requests[place] += 1
        if not self._troubles:
            return perform()
        faults = self._suffer({Place.ANY, place}, is_delete=verb is Verb.DELETE)
        if Fault.LOST_REQUEST in faults:
            raise StoreUnreachableError("no answer")
        if Fault.DENIED in faults:
            raise StoreDeniedError("the credentials expired")
        if Fault.MISSING in faults and verb is Verb.GET and self._store.has(key):
            raise ObjectMissingError(key, self.url)
        answer = perform()
        if Fault.KILL_AFTER in faults:
            self._die()
        if Fault.LOST_ANSWER in faults:
            raise StoreUnreachableError("no answer")
        return answer

    def local(self, place: Place) -> None:
        """Go through a moment of loading.

        Raises:
            RuntimeException: as ONNX Runtime does.
            MemoryError: as Python does.
            OSError: as the system does.
        """
        for fault in self._suffer({place}):
            if fault is Fault.NO_MEMORY and place is Place.RUN:
                raise runtime.RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")
            if fault is Fault.NO_MEMORY:
                raise MemoryError("std::bad_alloc")
            if fault is Fault.NO_FILES:
                raise OSError(errno.EMFILE, "Too many open files")
            if fault is Fault.SIGKILL:
                raise ChildKilledError

    def _suffer(self, places: set[Place], *, is_delete: bool = False) -> list[Fault]:
        hit = [each for each in self._troubles if each.trouble.place in places]
        if not hit:
            return []
        due = [each.trouble for each in hit if each.left <= 0]
        self._troubles = [each for each in self._troubles if each.left > 0 or each not in hit]
        for each in hit:
            each.left -= 1
        for trouble in due:
            if self._calm:  # the world was at peace when it woke from the one before
                return []
            self.hit = self.kernel.seconds
            if trouble.fault is Fault.KILL:
                self._die()
            # a request that was sent reaches the store soon, and nothing that deletes can hold on to more
            seconds = min(trouble.seconds, LONGEST_REQUEST) if is_delete else trouble.seconds
            if trouble.fault is Fault.SUSPEND:
                self.suspend(seconds)
                self.sleep(0)
            elif trouble.fault is Fault.SLOW:
                self.sleep(seconds)
            self.hit = self.kernel.seconds
        return [trouble.fault for trouble in due]

    def _die(self) -> None:
        self.kill()
        raise Killed


class ChildKilledError(Exception):
    """The child of the gate was killed by the system."""


LONGEST_REQUEST = 15.0


_PLACES = (
    (Verb.GET, "channels", Place.ENTRY),
    (Verb.GET, "versions", Place.MANIFEST),
    (Verb.GET, "sha256", Place.BLOB),
    (Verb.PUT_IF_ABSENT, "channels", Place.WRITE),
    (Verb.PUT, "consumers", Place.HEARTBEAT),
)


@functools.lru_cache(4096)
def _place(verb: Verb, key: str) -> Place:
    if key.startswith("garbage/"):
        return Place.GARBAGE
    folders = key.split("/")
    return next((place for each, name, place in _PLACES if each is verb and name in folders), Place.ANY)
