"""The local cache of verified model files, which only this user can read or write.

A file is written under a temporary name, synced and renamed, and its bytes are hashed again at each use:
what is loaded is what was hashed, also after a crash and on a disk that flips a bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ferryline.registry.digests import PREFIX, hex_of
from ferryline.registry.errors import UsageError

KEPT_FILES = 64
"""So many files stay whatever their size."""
MOST_FILES = 1024
"""So many stay if they are small: a process may follow hundreds of models."""
KEPT_BYTES = 2**30
"""What those beyond the first `KEPT_FILES` may take, with these."""

ORPHAN_SECONDS = 3600.0
"""A file that is still being written is younger; an older one was left by a process that was killed."""

_PRIVATE = 0o700
_SUFFIX = ".onnx"
_INCOMING = tempfile.gettempprefix()


class _File(NamedTuple):
    name: str
    size: int
    used: float


class BlobCache:
    """Model files, by digest.

    Args:
        folder: where they lie, in a folder `blobs`; several processes may share it.
        clock: gives seconds since the epoch, as the file system stamps files.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder / "blobs"
        self._clock = clock

    def find(self, digest: str) -> Path | None:
        """The file with `digest`, None where it is not here; a damaged one is removed.

        Raises:
            UsageError: the folder cannot be used, or belongs to someone else.
        """
        path = self._path(digest)
        with self._usable():
            # before the hash: in a folder that others can write, what is loaded need not be what was hashed
            self._make_private()
            try:
                if _digest_of_file(path) == digest:
                    os.utime(path)
                    return path
            except FileNotFoundError:  # not here, or pruned by another consumer since it was read
                return None
            path.unlink(missing_ok=True)
        return None

    def keep(self, digest: str, data: bytes) -> Path:
        """Keep verified bytes.

        Raises:
            UsageError: the folder cannot be written, or belongs to someone else.
        """
        path = self._path(digest)
        with self._usable():
            self._make_private()
            self._write(path, data)
            self._prune()
            self._remove_orphans()
        return path

    def _write(self, path: Path, data: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    def _prune(self) -> None:
        # several consumers may share the folder, so the files used last stay, not only this one's
        files = sorted(self._files(), key=lambda file: file.used, reverse=True)
        for file in files[_kept([file.size for file in files]) :]:
            path = self._folder / file.name
            path.unlink(missing_ok=True)
            for verdict in self._folder.glob(f"{path.stem}.*"):
                verdict.unlink(missing_ok=True)

    def _remove_orphans(self) -> None:
        """Removes what killed writers left: files under temporary names, of this cache and of verdicts."""
        oldest = self._clock() - ORPHAN_SECONDS
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(_INCOMING) and "." not in entry.name:
                    with contextlib.suppress(FileNotFoundError):  # its writer finished or removed it
                        if entry.stat().st_mtime < oldest:
                            Path(entry.path).unlink()

    def _files(self) -> Iterator[_File]:
        # one call for each file, as this is Python that a server's requests wait behind at every swap
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):  # another consumer pruned it
                        status = entry.stat()
                        yield _File(entry.name, status.st_size, status.st_mtime)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{hex_of(digest)}{_SUFFIX}"

    def _make_private(self) -> None:
        self._folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        self._folder.chmod(_PRIVATE)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"the cache {self._folder} cannot be used: {error.strerror}; name another with FERRY_CACHE"
            ) from error


def _digest_of_file(path: Path) -> str:
    # in pieces: a model may be as big as the memory that is left
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def _kept(sizes: Sequence[int]) -> int:
    """How many of the files stay, whose sizes these are in the order of their last use."""
    if len(sizes) <= KEPT_FILES:
        return len(sizes)
    fit = sum(total <= KEPT_BYTES for total in accumulate(sizes))
    return max(KEPT_FILES, min(MOST_FILES, fit))
