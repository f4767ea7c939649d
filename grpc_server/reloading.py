"""Values that live in files and may change while the server runs: certificates and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from ferryline.registry.errors import FerryError, UsageError

LARGEST_FILE = 2**20

log = structlog.get_logger(__name__)

_Value = TypeVar("_Value")


class Reloaded(Generic[_Value]):
    """What some files say, read again when they change.

    The files are read whole and compared, since they are small, and since neither times nor inodes tell of
    every way in which files are replaced. What they say is taken only if all of it is in order, so files that
    are half written, or of which one is new and one is old, change nothing.

    Args:
        what: what the files hold, for the log.
        files: the files.
        parse: makes the value from the bytes of each file; raises `UsageError` if they are not in order.

    Raises:
        UsageError: the files cannot be read or are not in order, now at the start.
    """

    def __init__(self, what: str, files: Sequence[Path], parse: Callable[[Sequence[bytes]], _Value]) -> None:
        self.what = what
        self._files = tuple(files)
        self._parse = parse
        self._seen: tuple[bytes, ...] | str = self._read()
        self.value = parse(self._seen)
        self.changes = 0
        self.refused: str | None = None
        """Why what the files say now is not taken; None while it is."""

    def check(self) -> None:
        """Look at the files, and take what they say if it is new and in order."""
        try:
            seen: tuple[bytes, ...] | str = self._read()
        except UsageError as error:
            seen = str(error)
        if seen == self._seen:
            return
        self._seen = seen
        self.refused = seen if isinstance(seen, str) else self._take(seen)
        if self.refused is not None:
            log.error("the files are not taken, the old ones go on", what=self.what, reason=self.refused)
            return
        self.changes += 1
        log.info("reloaded", what=self.what, files=[str(file) for file in self._files])

    def _take(self, contents: tuple[bytes, ...]) -> str | None:
        try:
            self.value = self._parse(contents)
        except FerryError as error:
            return str(error)
        return None

    def _read(self) -> tuple[bytes, ...]:
        return tuple(read_file(file) for file in self._files)


def read_file(file: Path) -> bytes:
    """The bytes of a small file.

    Raises:
        UsageError: it cannot be read, or is not small.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise UsageError(f"{file} is larger than a mebibyte; is it the right file?")
    return data


async def check_regularly(reloaded: Sequence[Reloaded[Any]], seconds: float) -> None:
    """Look at the files of each every so many seconds, off the event loop, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        for each in reloaded:
            await asyncio.to_thread(each.check)
