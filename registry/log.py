"""The append-only log: numbered objects under a prefix, each written once by put-if-absent.

One write of number n succeeds for exactly one writer, and that is the whole concurrency control. After a
timeout the outcome is unknown; the same bytes are offered again under the same number until the store
shows whose they are. They carry a random `op_id`, so equal bytes are one's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from registry.errors import BrokenChainError, ConflictError, OutcomeUnknownError, StoreUnreachableError
from registry.keys import NUMBER_WIDTH
from registry.stores.base import ObjectMissingError, Store

ATTEMPTS = 5
FIRST_PAUSE = 0.05  # seconds, doubled after each attempt
SUFFIX = ".json"
READERS = 8
"""How many entries are read at a time."""


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
            raise self._hole(number)
        return data

    def require_many(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The bytes of entries that must be there, in the order asked for, several read at a time.

        Raises:
            BrokenChainError: one is not there.
        """
        wanted = list(numbers)
        if len(wanted) <= 1:  # a thread costs more than it saves
            yield from map(self.require, wanted)
            return
        with ThreadPoolExecutor(READERS, thread_name_prefix="read-log") as pool:
            yield from pool.map(self.require, wanted)

    def numbers(self, *, after: int = 0) -> Iterator[int]:
        """The numbers of the entries beyond `after`, ascending; foreign objects are passed over."""
        for listed in self._store.list(self.prefix, after=self.key(after) if after else ""):
            stem = listed.key.removeprefix(self.prefix).removesuffix(SUFFIX)
            if self.key_form(stem) and listed.key.endswith(SUFFIX):
                yield int(stem)

    @staticmethod
    def key_form(stem: str) -> bool:
        """Whether `stem` is how a log writes a number."""
        return len(stem) == NUMBER_WIDTH and stem.isascii() and stem.isdigit() and int(stem) > 0

    def newest(self, *, at_least: int = 0) -> tuple[int, bytes] | None:
        """The number and bytes of the newest entry, None for an empty log.

        Args:
            at_least: a number that is believed to be written; where it is, only what lies beyond is listed.

        A number that is missing below the newest is no matter here: nothing is ever written into the gap, and
        whoever walks the log is told of it.
        """
        known = self.read(at_least) if at_least else None
        start = 0 if known is None else at_least
        head = max(self.numbers(after=start), default=start)
        if head == 0:
            return None
        return head, known if known is not None and head == start else self.require(head)

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

    def _hole(self, number: int) -> BrokenChainError:
        return BrokenChainError(f"{self.key(number)} is missing from the log; restore it from a backup")
