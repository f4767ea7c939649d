"""Reads objects that may be damaged, gone or out of reach, and says so instead of raising."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

from ferryline.registry.errors import StoreError, UntrustedAnswerError
from ferryline.registry.schema import Document
from ferryline.registry.stores.base import Listed, ObjectMissingError, Store

DocumentT = TypeVar("DocumentT", bound=Document)

GIVE_UP_AFTER = 8
"""So many reads in a row without an answer, and the store is taken for away."""


@dataclass(frozen=True, slots=True)
class Read(Generic[DocumentT]):
    """A document, or what is wrong with it; neither where it was deleted since it was listed."""

    number: int
    key: str
    document: DocumentT | None = None
    fault: str | None = None


class Reader:
    """Reads from `store`, from any number of threads.

    Raises:
        StoreError: from each method, once the store has not answered for `GIVE_UP_AFTER` reads in a row.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unanswered = 0
        self._lock = threading.Lock()

    def document(self, kind: type[DocumentT], listed: Listed, number: int = 0) -> Read[DocumentT]:
        """The document under a key."""
        try:
            data = self.data(listed.key)
            return Read(number, listed.key, document=kind.decode(data, key=listed.key))
        except ObjectMissingError:
            return Read(number, listed.key)
        except (UntrustedAnswerError, UnreadableError) as error:
            return Read(number, listed.key, fault=str(error))

    def data(self, key: str) -> bytes:
        """The bytes under a key.

        Raises:
            ObjectMissingError: there are none.
            UnreadableError: the store does not give them.
        """
        try:
            data = self._store.get(key).data
        except StoreError as error:
            with self._lock:
                self._unanswered += 1
                if self._unanswered >= GIVE_UP_AFTER:
                    raise
            raise UnreadableError(f"{key} cannot be read: {error}") from error
        with self._lock:
            self._unanswered = 0
        return data


class UnreadableError(Exception):
    """One object could not be read; the next may well be."""
