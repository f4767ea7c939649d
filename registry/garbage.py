"""What garbage collection and everyone else tell each other about a file, by two small objects beside it.

```
garbage/sha256/<hex>.json            the mark: nothing refers to this file; a later run may delete it
garbage/sha256/<hex>.collected.json  a run is about to delete the file, or has done so
```

A run writes `collected`, then reads the mark again, then deletes the file. Whoever is about to refer to a
file takes its mark away, then looks for `collected`. One of the two is first, so either the run sees that
the mark is gone, or the other sees that a run is at the file and lets it finish (docs/adr/0012).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar

from pydantic import AwareDatetime, Field

from ferryline.registry import keys
from ferryline.registry.clocks import elapsed
from ferryline.registry.digests import hex_of
from ferryline.registry.documents import Digest
from ferryline.registry.errors import RefusedError, StoreError
from ferryline.registry.schema import Document
from ferryline.registry.stores.base import Listed, ObjectMissingError, Store

MARKS = "garbage/sha256/"
MARK_SUFFIX = ".json"
COLLECTED_SUFFIX = ".collected.json"

SETTLE = 30.0
"""Seconds after which a run that was seen at a file has deleted it or given up: it allows itself 5 s, and
a request of the slowest store ends after 18."""
LONGEST_PUBLISH = 300.0
"""Seconds from a publish's first look at its file until it looks again; half of the shortest grace."""
_LOOK = 0.2
_GATE = "blob"


class Mark(Document):
    """That nothing referred to a file when a run looked; `versions` are those that have the file."""

    kind: ClassVar[str] = "garbage mark"

    digest_of_file: Digest
    size: int = Field(ge=0)
    versions: tuple[str, ...] = ()
    reason: str
    run: int = Field(ge=1)
    actor: str
    at: AwareDatetime
    op_id: str


def mark_key(digest: str) -> str:
    """Where the mark of a file lies."""
    return f"{MARKS}{hex_of(digest)}{MARK_SUFFIX}"


def collected_key(digest: str) -> str:
    """Where it lies that a file was, or is being, deleted."""
    return f"{MARKS}{hex_of(digest)}{COLLECTED_SUFFIX}"


class FileState(StrEnum):
    """What became of a version's file."""

    KEPT = "kept"
    MARKED = "marked"  # nothing refers to it; it goes after the grace period
    COLLECTED = "collected"
    MISSING = "missing"  # gone, and not by garbage collection


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a file, and since when by the store's clock."""

    state: FileState
    since: datetime | None = None

    def __str__(self) -> str:
        when = f"{self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return {
            FileState.KEPT: "is in the store",
            FileState.MARKED: f"was marked as garbage on {when}; promoting the version keeps it",
            FileState.COLLECTED: f"was collected on {when}",
            FileState.MISSING: "is missing from the store, and not by garbage collection",
        }[self.state]


def fate(store: Store, digest: str) -> Fate:
    """What became of the file with `digest`; two listings of a line or two.

    Raises:
        StoreError: the store does not answer, or will not say.
    """
    file = find_file(store, digest)
    signs = _signs(store, digest)
    if file is None:
        return Fate(FileState.COLLECTED, signs.collected) if signs.collected else Fate(FileState.MISSING)
    return Fate(FileState.MARKED, signs.marked) if signs.marked else Fate(FileState.KEPT)


def missing_reason(store: Store, digest: str) -> str:
    """Why a file that could not be read is not there, for a sentence; never raises."""
    try:
        return str(fate(store, digest))
    except StoreError:  # a consumer may not list what garbage collection wrote
        return "is missing from the store"


def spare(store: Store, digest: str) -> bool:
    """Keep a file from being collected for at least the grace period; False where it was in no danger.

    Where True is returned the file may be gone: look. One short listing where nothing threatens the file;
    where a run is at it, this waits until the run is done or must have given up, `SETTLE` seconds at most.

    Raises:
        StoreError: the store does not answer; nothing was promised.
    """
    signs = _signs(store, digest)
    if not signs:
        return False
    if signs.marked:
        store.delete(mark_key(digest))
    deadline = elapsed() + SETTLE
    while (begun := _signs(store, digest).collected) is not None:
        file = find_file(store, digest)
        if file is None or file.modified_at > begun:  # collected; or published again since
            return True
        if elapsed() >= deadline:  # the run was killed or gave up
            store.delete(collected_key(digest))
            return True
        time.sleep(_LOOK)
    return True


def secure(store: Store, digest: str, *, what: str) -> None:
    """Make sure that an entry may name a file: spared, and there.

    Call it before the entry is written. One short listing where nothing threatens the file.

    Args:
        store: where the file lies.
        digest: the file's.
        what: the version, for the message, as `digits@7`.

    Raises:
        RefusedError: it was collected, or is gone (gate `blob`).
    """
    if spare(store, digest) and find_file(store, digest) is None:
        raise RefusedError(
            _GATE,
            f"the file of {what} {missing_reason(store, digest)}",
            "Publish the same file again: that brings it back for every version that has it",
        )


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that a publish put into the store, or found there."""

    store: Store
    digest: str
    data: bytes
    endangered: bool
    looked_at: float

    def confirm(self) -> None:
        """Make sure that the file is there now that a manifest names it.

        Nothing is asked of the store, unless the file was on its way out or the publish took very long.
        """
        if self.endangered or elapsed() - self.looked_at > LONGEST_PUBLISH:
            spare(self.store, self.digest)
            self.store.put_if_absent(keys.blob(self.digest), self.data)


def keep(store: Store, digest: str, data: bytes) -> KeptFile:
    """Put a file into the store; call it before the manifest is written, and `confirm` after that.

    No bytes but these may lie under their digest, so what differs is replaced: publishing again mends a file.
    One request for a new file, and one short listing more for a file that is there already.
    """
    looked_at = elapsed()
    key = keys.blob(digest)
    endangered = False
    if not store.put_if_absent(key, data):
        endangered = spare(store, digest)
        try:
            if store.get(key).data != data:
                store.put(key, data)
        except ObjectMissingError:  # collected since
            endangered = True
            store.put_if_absent(key, data)
    return KeptFile(store, digest, data, endangered, looked_at)


@dataclass(frozen=True, slots=True)
class _Signs:
    marked: datetime | None = None
    collected: datetime | None = None

    def __bool__(self) -> bool:
        return self.marked is not None or self.collected is not None


def _signs(store: Store, digest: str) -> _Signs:
    found = {listed.key: listed.modified_at for listed in store.list(f"{MARKS}{hex_of(digest)}.")}
    return _Signs(found.get(mark_key(digest)), found.get(collected_key(digest)))


def find_file(store: Store, digest: str) -> Listed | None:
    """Returns the line of a listing that shows the file with `digest`, None where there is none."""
    return _listed(store, keys.blob(digest))


def _listed(store: Store, key: str) -> Listed | None:
    listed = next(iter(store.list(key)), None)
    return listed if listed is not None and listed.key == key else None


def digests_below(listing: Iterable[Listed], suffix: str) -> dict[str, Listed]:
    """Lines of a listing of `MARKS` that end in `suffix`, by the digest of the file they are about."""
    found = {}
    for listed in listing:
        stem = listed.key.removeprefix(MARKS)
        name = stem.partition(".")[0]
        if stem == name + suffix and is_hex_digest(name):
            found[f"sha256:{name}"] = listed
    return found


def is_hex_digest(name: str) -> bool:
    """Whether `name` is the hexadecimal part of a SHA-256 digest."""
    return len(name) == 64 and all(char in "0123456789abcdef" for char in name)  # noqa: PLR2004 - 256 bits
