"""The append-only log: numbered objects under a prefix, each written once by put-if-absent.

One write of number n succeeds for exactly one writer, and that is the whole concurrency control. After a
timeout the outcome is unknown; the same bytes are offered again under the same number until the store
shows whose they are. They carry a random `op_id`, so equal bytes are one's own. What is written is read back,
and what is built upon is read twice: no answer of the store is believed alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from ferryline.registry.errors import (
    BrokenChainError,
    ConflictError,
    OutcomeUnknownError,
    StoreError,
    StoreUnreachableError,
    UntrustedAnswerError,
)
from ferryline.registry.keys import NUMBER_WIDTH
from ferryline.registry.stores.base import ObjectMissingError, Store

ATTEMPTS = 5
FIRST_PAUSE = 0.05  # seconds, doubled after each attempt
SUFFIX = ".json"
READERS = 8
"""How many entries are read at a time."""
LAST_NUMBER = 10**NUMBER_WIDTH - 1
"""The highest number that a key has room for."""


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

    def confirmed(self, number: int) -> bytes | None:
        """The bytes of entry `number` as two reads show them, None where it is not written yet.

        For what is built upon or remembered: one bit that flips on the way to a writer would break the
        chain for good.

        Raises:
            UntrustedAnswerError: no two reads agree.
        """
        seen = self.read(number)
        for _ in range(ATTEMPTS - 1):
            again = None if seen is None else self.read(number)
            if seen == again:
                return seen
            seen = again
        raise UntrustedAnswerError(
            f"the store shows other bytes of {self.key(number)} each time it is asked; "
            "look for a bad disk, memory or proxy on the way to it"
        )

    def require(self, number: int) -> bytes:
        """The bytes of an entry that must be there, as two reads show them.

        Raises:
            BrokenChainError: it is not.
        """
        return self._there(number, self.confirmed(number))

    def require_many(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The bytes of entries that must be there, in the order asked for, several read at a time.

        Each is read once: those who ask for many check the chain.

        Raises:
            BrokenChainError: one is not there.
        """
        wanted = list(numbers)
        if len(wanted) <= 1:  # a thread costs more than it saves
            yield from map(self._read_one, wanted)
            return
        with ThreadPoolExecutor(READERS, thread_name_prefix="read-log") as pool:
            yield from pool.map(self._read_one, wanted)

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
        known = self.confirmed(at_least) if at_least else None
        start = 0 if known is None else at_least
        head = max(self.numbers(after=start), default=start)
        if head == 0:
            return None
        return head, known if known is not None and head == start else self.require(head)

    def written_at(self, number: int) -> datetime:
        """When an entry that is there was written, by the store's own clock.

        Raises:
            UntrustedAnswerError: the store does not list it.
        """
        key = self.key(number)
        for listed in self._store.list(key):
            if listed.key == key:
                return listed.modified_at
        raise UntrustedAnswerError(
            f"{self._store.url} does not list {key}, which was just written; try `ferry doctor`"
        )

    def append(self, number: int, data: bytes) -> None:
        """Write `data` as entry `number`; on return it is there for good, and was read back.

        Raises:
            BrokenChainError: no number is left, which no writer can have used up.
            ConflictError: another writer's entry has that number.
            StoreDeniedError: the store refused it, and nothing was written.
            OutcomeUnknownError: the store gave no answer that tells.
        """
        if number > LAST_NUMBER:  # its key would not be one of the log's, and nobody would ever read it
            raise BrokenChainError(
                f"{self.key(LAST_NUMBER)} is the last number that the log {self.prefix} has, and no writer "
                "counts that far: remove that object if nobody you know wrote it. Nothing was written"
            )
        offer = _Offer(self, number, data)
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            if attempt:
                self._pause(pause)
                pause *= 2
            if offer.is_kept():
                return
        raise OutcomeUnknownError(
            f"it is not known whether {self.key(number)} was written: {offer.fault}. "
            "Read the log when the store answers again; nothing needs to be undone"
        ) from offer.fault

    def put_if_absent(self, number: int, data: bytes) -> bool:
        """One attempt to write entry `number`; True where this very request wrote it."""
        return self._store.put_if_absent(self.key(number), data)

    def _read_one(self, number: int) -> bytes:
        return self._there(number, self.read(number))

    def _there(self, number: int, data: bytes | None) -> bytes:
        if data is None:
            raise self._hole(number)
        return data

    def _hole(self, number: int) -> BrokenChainError:
        return BrokenChainError(f"{self.key(number)} is missing from the log; restore it from a backup")


class _Offer:
    """An entry on its way into the log: what is known of it after each attempt."""

    def __init__(self, log: AppendLog, number: int, data: bytes) -> None:
        self.fault: StoreError | None = None
        self._log = log
        self._number = number
        self._data = data
        self._acknowledged = False

    def is_kept(self) -> bool:
        """Offer it once; whether the log shows it now.

        Raises:
            ConflictError: the log shows another writer's entry.
            StoreError: the store refused the first attempt, so nothing was written.
        """
        try:
            self._acknowledged |= self._log.put_if_absent(self._number, self._data)
        except StoreUnreachableError as error:
            self.fault = error
            return False
        except StoreError as error:
            if self.fault is None and not self._acknowledged:
                raise
            self.fault = error  # an earlier attempt may have arrived, so this answer decides nothing
            return False
        try:
            return self._is_shown()
        except StoreError as error:
            self.fault = error
            return False

    def _is_shown(self) -> bool:
        found = self._log.read(self._number)
        if found == self._data:
            return True
        if found is None:
            self.fault = StoreUnreachableError("the store says that the entry exists and cannot show it")
        elif self._data.startswith(found):  # a whole entry is never the beginning of another
            self.fault = UntrustedAnswerError("the store's answer was cut off")
        elif self._acknowledged:
            self.fault = UntrustedAnswerError(
                "the store took it and shows other bytes than it was given; `ferry doctor` examines the store"
            )
        # a bit that flipped on the way must not make one's own entry look like another writer's
        elif found == self._log.read(self._number):
            raise ConflictError(f"{self._log.key(self._number)} was written by someone else first")
        else:
            self.fault = UntrustedAnswerError("the store shows other bytes each time it is asked")
        return False
