"""What a consumer remembers across restarts: the highest generation of a channel that it has seen.

Signatures do not stop a store from showing an old state that was signed once. So each consumer keeps a mark,
and refuses a channel that is behind it or that has another entry under it: a generation that was seen stays
seen (The Update Framework calls what this stops a rollback attack).

    <state>/ratchet/<store, 16 hex digits>/<model>/<channel>.json

The file is replaced as a whole under a lock and only ever rises, so a crash leaves the old mark or the new
one, and any number of processes may share it.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson

from ferryline.registry.digests import hex_of
from ferryline.registry.durable import DurableFolders, sync_folder
from ferryline.registry.errors import BrokenChainError, UsageError
from ferryline.registry.folders import adopt, former_store

_STORE_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Mark:
    """A generation of a channel, and the digest of its entry."""

    generation: int
    digest: str


class Entry(Protocol):
    """What is remembered of a channel's entry."""

    @property
    def generation(self) -> int:
        """Its number."""
        ...

    @property
    def digest(self) -> str:
        """The digest of its bytes."""
        ...


class Ratchet:
    """The mark of one channel.

    Args:
        state: the folder of what programs remember (`FERRY_STATE`).
        store: the store's URL.
        model: the model.
        channel: its channel.
    """

    def __init__(self, state: Path, store: str, model: str, channel: str) -> None:
        self.file = _marks_of(state.expanduser() / "ratchet", store) / model / f"{channel}.json"
        self._folders = DurableFolders(state.expanduser().absolute(), mode=0o700)
        self._store = store
        self._name = f"{model}:{channel}"

    def mark(self) -> Mark | None:
        """The mark, None where nothing was seen yet; to be read before the channel is, which may move on.

        Raises:
            UsageError: the file cannot be read, or is damaged.
        """
        with self._usable():
            try:
                data = self.file.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return _decode(data)
        except ValueError as error:
            raise UsageError(
                f"{self.file}, which remembers the highest generation of {self._name}, is damaged ({error}). "
                f"Look at `ferry history {self._name}`; if all is as it should be, remove the file to trust "
                "it anew"
            ) from error

    def require(self, mark: Mark | None, head: Entry | None, digest_of: Callable[[int], str]) -> None:
        """Return when a channel whose newest entry is `head` is no older than `mark`, and has what was seen.

        Args:
            mark: what `mark()` gave before `head` was read.
            head: the newest entry, None where there is none.
            digest_of: gives the digest of the entry of a generation.

        Raises:
            BrokenChainError: it is older, or its log is another one.
        """
        if mark is None:
            return
        generation = head.generation if head else 0
        if head is None or generation < mark.generation:
            raise self._broken(f"is at generation {generation} and was at {mark.generation} before")
        found = head.digest if generation == mark.generation else digest_of(mark.generation)
        if found != mark.digest:
            raise self._broken(f"has another entry of generation {mark.generation} than before")

    def advance(self, entry: Entry) -> None:
        """Remember `entry`, unless a higher one is remembered; on return it outlives a crash.

        Raises:
            BrokenChainError: another entry of the same generation is remembered.
            UsageError: the file cannot be written, or is damaged.
        """
        seen = Mark(entry.generation, entry.digest)
        with self._usable(), self._locked():
            mark = self.mark()
            if mark is None or mark.generation < seen.generation:
                self._write(seen)
            elif mark.generation == seen.generation and mark.digest != seen.digest:
                raise self._broken(f"has another entry of generation {mark.generation} than before")

    def _broken(self, what: str) -> BrokenChainError:
        return BrokenChainError(
            f"{self._name} in {self._store} {what}: the log was cut, replaced or restored from an old copy. "
            f"Bring the newer log back; if this one is to be followed, remove {self.file} and restart"
        )

    def _write(self, mark: Mark) -> None:
        data = orjson.dumps(
            {
                "store": self._store,
                "channel": self._name,
                "generation": mark.generation,
                "digest": mark.digest,
                "check": _check(mark),
            }
        )
        incoming = self.file.with_suffix(".new")  # one name will do, under the lock
        with incoming.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        incoming.replace(self.file)
        sync_folder(self.file.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folders.make(self.file.parent.absolute())
        descriptor = os.open(self.file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self.file}, which remembers the highest generation of {self._name}, cannot be used: "
                f"{error.strerror}; name another folder with FERRY_STATE, or set FERRY_RATCHET=false"
            ) from error


def _lock(descriptor: int) -> None:
    """Waits for a lock that ends with the descriptor; on Windows ten seconds at most."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _marks_of(ratchet: Path, store: str) -> Path:
    """Returns the folder of a store's marks, those of the default store from before its URL had this name."""
    folder = ratchet / _short(store)
    former = former_store(store)
    return folder if former is None else adopt(folder, ratchet / _short(former))[0]


def _short(store: str) -> str:
    return hashlib.sha256(store.encode()).hexdigest()[:_STORE_DIGITS]


def _decode(data: bytes) -> Mark:
    raw = orjson.loads(data)
    if not isinstance(raw, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - a file's fault
    generation, digest = raw.get("generation"), raw.get("digest")
    if type(generation) is not int or generation < 1 or not isinstance(digest, str):
        raise ValueError("it names no generation and digest")
    try:
        hex_of(digest)
    except UsageError as error:
        raise ValueError(str(error)) from error
    mark = Mark(generation, digest)
    if raw.get("check") != _check(mark):
        raise ValueError("its check sum is wrong")
    return mark


def _check(mark: Mark) -> str:
    # against a disk that flips a bit or a hand that slips; who can write here can remove the file too
    return hashlib.sha256(f"{mark.generation} {mark.digest}".encode()).hexdigest()[:16]
