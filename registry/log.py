"""The append-only log: numbered objects under a prefix, each written once by put-if-absent.

One write of number n succeeds for exactly one writer, and that is the whole concurrency control. After a
timeout the outcome is unknown; the same bytes are offered again under the same number until the store
shows whose they are. They carry a random `op_id`, so equal bytes are one's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from registry.errors import BrokenChainError, ConflictError, OutcomeUnknownError, StoreUnreachableError
from registry.keys import NUMBER_WIDTH
from registry.stores.base import ObjectMissingError, Store

ATTEMPTS = 5
FIRST_PAUSE = 0.05  # seconds, doubled after each attempt
SUFFIX = ".json"


class AppendLog:
    """The log under `prefix` (which ends in a slash); entries are numbered from 1."""

    def __init__(self, store: Store, prefix: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._store = store
        self._pause = pause
        self.prefix = prefix

    def key(self, number: int) -> str:
        """Where entry `number` lies."""
        return f"{self.prefix}{number:0{NUMBER_WIDTH}d}{SUFFIX}"

    def read(self, number: int) -> bytes | None:
        """The bytes of entry `number`, None where it is not written yet."""
        try:
            return self._store.get(self.key(number)).data
        except ObjectMissingError:
            return None

    def require(self, number: int) -> bytes:
        """The bytes of an entry that must be there.

        Raises:
            BrokenChainError: it is not.
        """
        data = self.read(number)
        if data is None:
            raise BrokenChainError(f"{self.key(number)} is missing from the log; restore it from a backup")
        return data

    def numbers(self, *, after: int = 0) -> Iterator[int]:
        """The numbers of the entries beyond `after`, ascending."""
        for listed in self._store.list(self.prefix, after=self.key(after) if after else ""):
            stem = listed.key.removeprefix(self.prefix).removesuffix(SUFFIX)
            if len(stem) == NUMBER_WIDTH and stem.isascii() and stem.isdigit():
                yield int(stem)

    def head(self, *, at_least: int = 0) -> int:
        """The highest number written, 0 for an empty log; `at_least` is known to be written."""
        return max(self.numbers(after=at_least), default=at_least)

    def append(self, number: int, data: bytes) -> None:
        """Write `data` as entry `number`; on return it is there for good.

        Raises:
            ConflictError: another writer's entry has that number.
            OutcomeUnknownError: the store gave no answer to any attempt.
        """
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            if attempt:
                self._pause(pause)
                pause *= 2
            try:
                if self._store.put_if_absent(self.key(number), data):
                    return
                found = self.read(number)
            except StoreUnreachableError as error:
                last = error
                continue
            if found == data:  # an earlier attempt of ours arrived after all
                return
            if found is not None:
                raise ConflictError(f"{self.key(number)} was written by someone else first")
            last = StoreUnreachableError("the store says that the entry exists and cannot show it")
        raise OutcomeUnknownError(
            f"it is not known whether {self.key(number)} was written: {last}. "
            "Read the log when the store answers again; nothing needs to be undone"
        ) from last
