"""Stores that answer politely and break one promise each; the doctor must name it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from ferryline.registry.errors import MissingRightError
from ferryline.registry.stores import Listed, ObjectMissingError, Stored
from ferryline.registry.stores.memory import MemoryStore
from tests.support.waiting import DEADLINE

# --- put-if-absent ----------------------------------------------------------------------------------


class Overwriting(MemoryStore):
    """Does not know the condition at all."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class SilentlyOverwriting(MemoryStore):
    """Answers as it should, and overwrites all the same."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        created = super().put_if_absent(key, data)
        if not created:
            self.put(key, data)
        return created


class CheckingThenWriting(MemoryStore):
    """Right for one writer; of two at once both are told that they won."""

    def __init__(self) -> None:
        super().__init__()
        self._checked = threading.Condition()
        self._racers: Counter[str] = Counter()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self.get(key)
        except ObjectMissingError:
            if "race" in key:
                self._let_another_check(key)
            self.put(key, data)
            return True
        return False

    def _let_another_check(self, key: str) -> None:
        with self._checked:
            self._racers[key] += 1
            self._checked.notify_all()
            assert self._checked.wait_for(lambda: self._racers[key] > 1, DEADLINE)


class KeepingTheLoser(MemoryStore):
    """One racer is told that it won, and another's bytes are kept."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = threading.Condition()
        self._first: dict[str, bytes] = {}

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if "race" not in key:
            return super().put_if_absent(key, data)
        with self._arrived:
            if key in self._first:
                self.put(key, data)
                return False
            self._first[key] = data
            self.put(key, data)
            return True


class Refusing(MemoryStore):
    """Says 'there already' to everybody and keeps nothing."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return False


# --- reads ------------------------------------------------------------------------------------------


class Stale(MemoryStore):
    """Keeps the first write of a key and drops the rest."""

    def put(self, key: str, data: bytes) -> None:
        super().put_if_absent(key, data)


class ReadingTheOneBefore(MemoryStore):
    """A replica that lags: the first read after a rewrite shows what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[str, Stored] = {}

    def put(self, key: str, data: bytes) -> None:
        with contextlib.suppress(ObjectMissingError):
            self._before[key] = super().get(key)
        super().put(key, data)

    def get(self, key: str) -> Stored:
        return self._before.pop(key, None) or super().get(key)


class RememberingMisses(MemoryStore):
    """A cache that keeps saying 'missing' of what it once did not find."""

    def __init__(self) -> None:
        super().__init__()
        self._missed: set[str] = set()

    def get(self, key: str) -> Stored:
        if key in self._missed:
            raise ObjectMissingError(key, self.url)
        try:
            return super().get(key)
        except ObjectMissingError:
            self._missed.add(key)
            raise


class InventingObjects(MemoryStore):
    """Answers a read of what is not there with an empty page."""

    def get(self, key: str) -> Stored:
        try:
            return super().get(key)
        except ObjectMissingError:
            return Stored(b"", "")


class Truncating(MemoryStore):
    """Cuts large objects short on their way back."""

    def get(self, key: str) -> Stored:
        found = super().get(key)
        return replace(found, data=found.data[: 8 * 1024 * 1024])


class IgnoringConditions(MemoryStore):
    """Sends an object again although it is the same."""

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        return self.get(key)


class NeverChanging(MemoryStore):
    """Says of every object that it is the same as before."""

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        self.get(key)
        return None


# --- writes and deletes -----------------------------------------------------------------------------


class LosingWrites(MemoryStore):
    """Acknowledges every write and loses each 300th."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def put(self, key: str, data: bytes) -> None:
        self._count += 1
        if self._count % 300:
            super().put(key, data)


class Immortal(MemoryStore):
    """Acknowledges deletes and does none."""

    def delete(self, key: str) -> None:
        """Do nothing."""


# --- listings ---------------------------------------------------------------------------------------


class ListingLate(MemoryStore):
    """A listing lacks the newest object."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        found = list(super().list(prefix, after=after))
        newest = max((listed.modified_at for listed in found), default=None)
        return (listed for listed in found if listed.modified_at != newest)


class ListingInAnyOrder(MemoryStore):
    """A listing is in the order of writing."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        return iter(sorted(super().list(prefix, after=after), key=lambda listed: listed.modified_at))


class ListingOnePage(MemoryStore):
    """A listing ends with its first page."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        return iter(list(super().list(prefix, after=after))[:1000])


class ListingFromTheStart(MemoryStore):
    """A listing from a key onwards is the whole listing."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        return super().list(prefix)


class ListingWrongSizes(MemoryStore):
    """A listing gives the size on the disk, compressed."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        return (replace(listed, size=listed.size // 2) for listed in super().list(prefix, after=after))


class WithoutFolders(MemoryStore):
    """Knows no delimiter: every key is its own folder."""

    def folders(self, prefix: str) -> Iterator[str]:
        return (listed.key.removeprefix(prefix).partition("/")[0] for listed in self.list(prefix))


class Skewed(MemoryStore):
    """Its clock is an hour slow."""

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for listed in super().list(prefix, after=after):
            yield replace(listed, modified_at=listed.modified_at - timedelta(hours=1))


# --- not cheating: rights ---------------------------------------------------------------------------


class Guarded(MemoryStore):
    """An honest store whose user may write below some prefixes only."""

    def __init__(self, *writable: str) -> None:
        super().__init__()
        self._writable = writable

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._require(key)
        return super().put_if_absent(key, data)

    def put(self, key: str, data: bytes) -> None:
        self._require(key)
        super().put(key, data)

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        self._require(key)
        return super().put_if_unchanged(key, data, etag)

    def delete(self, key: str) -> None:
        self._require(key)
        super().delete(key)

    def _require(self, key: str) -> None:
        if not key.startswith(self._writable):
            raise MissingRightError(self.url, f"the right to write {key}")
