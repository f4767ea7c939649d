"""What the registry asks of an object store: a handful of verbs, and the rule for keys.

Every implementation passes `tests/registry/store_conformance.py`, the race for one key included.
All raise `StoreUnreachableError` where no answer came; then the outcome of a write is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ferryline.registry.errors import CorruptDocumentError, NotFoundError, UsageError
from ferryline.registry.keys import BLOBS

# file systems, and MinIO on them, hold names of up to 255 bytes
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")


LARGEST_DOCUMENT = 64 << 20
"""Bytes of any object but a model file; who may write one object must not fill the memory of its readers."""


class ObjectMissingError(NotFoundError):
    """No object lies under the key."""

    def __init__(self, key: str, url: str) -> None:
        super().__init__(f"no object {key} in {url}")
        self.key = key


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's bytes, and the tag that changes whenever they are rewritten."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing. `modified_at` is the store's own clock; `size` is in bytes."""

    key: str
    size: int
    modified_at: datetime


class Store(Protocol):
    """A flat space of keys with atomic whole-object writes."""

    @property
    def url(self) -> str:
        """Where it is, without credentials: fit for messages."""
        ...

    def get(self, key: str) -> Stored:
        """The newest object under `key`.

        Raises:
            ObjectMissingError: there is none.
            CorruptDocumentError: it is larger than a document may be.
        """
        ...

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        """The object under `key`, or None while it still has `etag`.

        Raises:
            ObjectMissingError: there is none.
        """
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write `data` unless an object lies there; True for exactly one of any number of writers."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object: a heartbeat, a damaged blob; a log never uses it."""
        ...

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        """Replace the object while it still has `etag`; False where it was rewritten since, or is gone.

        For what is made of what was read, such as the hint. A store that does not know the condition
        replaces the object in any case, so nothing may depend on it for more than timeliness.
        """
        ...

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Every object whose key starts with `prefix` and sorts after `after`, in key order."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """The names, in order, one level under `prefix` (which ends in a slash) that have objects below."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""
        ...

    def now(self) -> datetime:
        """The present by the clock that `Listed.modified_at` is of, as nearly as it is known.

        Nothing is asked of the store: its last answer told it. Before the first one it is this machine's.
        """
        ...


def require_size(key: str, size: int) -> None:
    """Return if an object of `size` bytes may be read; a model file's size is for its manifest to say.

    Raises:
        CorruptDocumentError: it is larger than a document may be.
    """
    if size > LARGEST_DOCUMENT and not key.startswith(BLOBS):
        raise CorruptDocumentError(
            f"{key} has {size} bytes, more than any document ({LARGEST_DOCUMENT}); it was not read. "
            "Restore the object or remove it"
        )


def require_key(key: str) -> str:
    """Return `key` if every store can hold it.

    Raises:
        UsageError: it is empty, climbs out of the store, or uses characters that some store changes.
    """
    if len(key) > 512 or not all(_SEGMENT.fullmatch(part) for part in key.split("/")):  # noqa: PLR2004 - S3 allows 1,024 bytes, prefix included
        raise UsageError(f"{key!r} is no object key")
    return key
