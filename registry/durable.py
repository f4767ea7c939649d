"""Folders and names that outlive a crash: a file's bytes may be on the disk and its name not."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on the disk."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder, and writes names with what they name
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DurableFolders:
    """Makes folders whose names, and those of their parents, are on the disk when they are used.

    A folder that is there may not be there after a crash: whoever made it may have ended before its name was
    synced. So each name is synced once by each object of this class, those that it finds too.

    Args:
        root: below it each name must be synced; its own, and those above, only where this object made them.
        mode: the permissions of new folders, before the umask.
    """

    def __init__(self, root: Path, *, mode: int = 0o777) -> None:
        self._root = root
        self._mode = mode
        self._made: set[Path] = set()
        self._synced: set[Path] = set()

    def make(self, folder: Path) -> None:
        """Make `folder`, an absolute path, and what is missing above it.

        Raises:
            OSError: a folder cannot be made, or its name not be synced.
        """
        is_there = folder.is_dir()
        if (folder in self._synced and is_there) or folder == folder.parent:
            return
        self.make(folder.parent)
        if not is_there:
            folder.mkdir(self._mode, exist_ok=True)
            self._made.add(folder)
        try:
            sync_folder(folder.parent)
        except OSError:
            # the root and what lies above it may be somebody else's, in folders that are closed to this user
            if folder in self._made or self._root in folder.parents:
                raise
        self._synced.add(folder)
