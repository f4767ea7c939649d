"""A store in this process's memory: for tests and for trying things out. It ships on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

from ferryline.registry.documents import utc_now
from ferryline.registry.stores.base import Listed, ObjectMissingError, Stored, require_key, require_size


class MemoryStore:
    """Objects in a dictionary; safe to use from many threads."""

    def __init__(self, name: str = "default") -> None:
        self.url = f"memory://{name}"
        self._objects: dict[str, tuple[Stored, datetime]] = {}
        self._writes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Stored:
        with self._lock:
            found = self._objects.get(require_key(key))
        if found is None:
            raise ObjectMissingError(key, self.url)
        require_size(key, len(found[0].data))
        return found[0]

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        found = self.get(key)
        return None if found.etag == etag else found

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._lock:
            if require_key(key) in self._objects:
                return False
            self._write(key, data)
            return True

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._write(require_key(key), data)

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        with self._lock:
            found = self._objects.get(require_key(key))
            if found is None or found[0].etag != etag:
                return False
            self._write(key, data)
            return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        with self._lock:
            found = sorted((key, entry) for key, entry in self._objects.items() if key.startswith(prefix))
        for key, (stored, modified_at) in found:
            if key > after:
                yield Listed(key, len(stored.data), modified_at)

    def folders(self, prefix: str) -> Iterator[str]:
        with self._lock:
            below = [key.removeprefix(prefix) for key in self._objects if key.startswith(prefix)]
        yield from sorted({name for name, slash, _ in (key.partition("/") for key in below) if slash})

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(require_key(key), None)

    def now(self) -> datetime:
        return utc_now()

    def _write(self, key: str, data: bytes) -> None:
        self._writes += 1
        self._objects[key] = (Stored(bytes(data), etag=str(self._writes)), utc_now())
