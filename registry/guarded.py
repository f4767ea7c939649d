"""A store that is looked at before the first entry is written to it.

The look is `ferryline.registry.doctor.trust.require_trustworthy`, once a month for each store and machine,
and only whoever writes a log takes it: readers, and consumers with their heartbeats, never pay for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ferryline.registry.stores.base import Listed, Store, Stored


class GuardedStore:
    """`store`, whose first put-if-absent is preceded by a proof that it keeps one.

    Args:
        store: what is written to.
        memory: a folder of this user's that remembers the proof.
    """

    def __init__(self, store: Store, memory: Path) -> None:
        self.url = store.url
        self._store = store
        self._memory = memory
        self._proved = False
        self._lock = threading.Lock()

    def get(self, key: str) -> Stored:
        """See `Store.get`."""
        return self._store.get(key)

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        """See `Store.get_if_changed`."""
        return self._store.get_if_changed(key, etag)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `Store.put_if_absent`.

        Raises:
            UntrustedAnswerError: the store cheats; nothing was written.
        """
        self._require_trustworthy()
        return self._store.put_if_absent(key, data)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        self._store.put(key, data)

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        """See `Store.put_if_unchanged`."""
        return self._store.put_if_unchanged(key, data, etag)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`."""
        return self._store.list(prefix, after=after)

    def folders(self, prefix: str) -> Iterator[str]:
        """See `Store.folders`."""
        return self._store.folders(prefix)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._store.delete(key)

    def now(self) -> datetime:
        """See `Store.now`."""
        return self._store.now()

    def _require_trustworthy(self) -> None:
        if self._proved:
            return
        from ferryline.registry.doctor.trust import require_trustworthy

        with self._lock:  # the threads of one program look once
            if not self._proved:
                require_trustworthy(self._store, self._memory)
                self._proved = True
