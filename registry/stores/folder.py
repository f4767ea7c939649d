"""A store in a folder of a local (or POSIX-faithful shared) file system.

Put-if-absent is `link(2)`: a complete, synced temporary file is linked to its name, which fails where
the name exists. A replacement is `rename(2)`. Both are atomic, so a reader never sees half an object.
"""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ferryline.registry.documents import utc_now
from ferryline.registry.durable import DurableFolders, sync_folder
from ferryline.registry.errors import MissingRightError, StoreUnreachableError
from ferryline.registry.stores.base import Listed, ObjectMissingError, Stored, require_key, require_size

_INCOMING = ".incoming"

ORPHANED_AFTER = 86_400.0
"""Seconds after which a file that is not complete yet is taken for one of a writer that was killed."""
_LOCK_TRIES = 100
_LOCK_PAUSE = 0.02  # seconds between two tries


class FolderStore:
    """Objects as files below `root`, which is made on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = self.root.as_uri()
        self._folders = DurableFolders(self.root)
        self._swept = False

    def get(self, key: str) -> Stored:
        with self._translated(key), open(self._path(key), "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):  # a pipe or a device: reading it could take for ever
                raise ObjectMissingError(key, self.url)
            require_size(key, found.st_size)
            return Stored(file.read(), _etag(found))

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        with self._translated(key):
            unchanged = _etag(self._path(key).stat()) == etag
        return None if unchanged else self.get(key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with self._usable(), self._incoming(target, data) as complete:
            try:
                os.link(complete, target)
            except FileExistsError:
                created = False
            else:
                created = True
            # a name that is there already may be one whose sync failed: what was seen must outlive a crash
            self._sync_name(target)
            return created

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._usable(), self._incoming(target, data) as complete:
            complete.replace(target)
            self._sync_name(target)

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        target = self._path(key)
        with self._usable(), self._incoming(target, data) as complete, _locked(complete.parent):
            try:
                if _etag(target.stat()) != etag:
                    return False
            except FileNotFoundError:
                return False
            complete.replace(target)
            self._sync_name(target)
            return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        folder, _, _ = prefix.rpartition("/")
        with self._translated(prefix):
            every = self._keys_below(self.root / folder)
            found = sorted(key for key in every if key > after and key.startswith(prefix))
        for key in found:
            if listed := self._listed(key):
                yield listed

    def folders(self, prefix: str) -> Iterator[str]:
        folder = self.root / prefix
        with self._translated(prefix):
            try:
                entries = sorted(folder.iterdir())
            except FileNotFoundError:
                return
            shown = [entry for entry in entries if entry.name != _INCOMING and entry.is_dir()]
            names = [entry.name for entry in shown if any(self._keys_below(entry))]
        yield from names

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._path(key).unlink(missing_ok=True)

    def now(self) -> datetime:
        return utc_now()

    def _listed(self, key: str) -> Listed | None:
        with self._translated(key):
            try:
                found = (self.root / key).stat()
            except FileNotFoundError:  # deleted since it was listed
                return None
        if not stat.S_ISREG(found.st_mode):  # a pipe, say: reading it could take for ever
            return None
        return Listed(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _path(self, key: str) -> Path:
        return self.root / require_key(key)

    def _keys_below(self, folder: Path) -> Iterator[str]:
        for parent, folders, files in os.walk(folder, onerror=_unless_missing):
            folders[:] = [name for name in folders if name != _INCOMING]
            # text, not Path: a head is found by a listing, and a log may have many thousand entries
            below = parent[len(str(self.root).rstrip("/")) + 1 :]
            yield from (f"{below}/{name}" for name in files) if below else files

    @contextmanager
    def _incoming(self, target: Path, data: bytes) -> Iterator[Path]:
        incoming = self.root / _INCOMING
        self._folders.make(incoming)
        self._folders.make(target.parent)
        # not mkstemp, whose files only this user can read: a folder store may be shared, as the umask says
        complete = incoming / uuid.uuid4().hex
        try:
            with complete.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                self._sweep(incoming, os.fstat(file.fileno()).st_mtime)
            yield complete
        finally:
            complete.unlink(missing_ok=True)

    def _sweep(self, incoming: Path, now: float) -> None:
        """Remove what killed writers left behind, once; `now` is the file system's own time."""
        if self._swept:
            return
        self._swept = True
        with suppress(OSError):  # another user's file, say: nobody's write fails for it
            for left in incoming.iterdir():
                with suppress(OSError):
                    if now - left.stat().st_mtime > ORPHANED_AFTER:
                        left.unlink()

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        with self._usable():
            try:
                yield
            except (FileNotFoundError, IsADirectoryError) as error:
                raise ObjectMissingError(key, self.url) from error

    def _sync_name(self, target: Path) -> None:
        try:
            sync_folder(target.parent)
        except OSError as error:  # whatever it is, it must not sound as if nothing had been written
            raise StoreUnreachableError(
                f"{self.url} took {target.name} and cannot say whether it is on the disk: {error.strerror}"
            ) from error

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise MissingRightError(self.url, f"access to {error.filename} ({error.strerror})") from error
        except OSError as error:
            raise StoreUnreachableError(
                f"{self.url} cannot be used: {error.strerror} ({error.filename}); "
                "check the disk, the path and its permissions"
            ) from error


def _at_once(path: str, flags: int) -> int:
    # a pipe without a writer is opened and not waited for
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _etag(found: os.stat_result) -> str:
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def _unless_missing(error: OSError) -> None:
    # a folder that cannot be read must not look like an empty one
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers that ask for this lock waiting for two seconds; where there is none, nobody."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # whoever can read the folder can hold it, a stopped process too: no write waits for it for ever
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)
