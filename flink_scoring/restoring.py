"""Where the state of a job lies, and how a job that was lost goes on from it.

Each job has a folder of its own for checkpoints, below the one that the cluster is configured with, so that
its newest state is found by its name: a job that is submitted anew has another id. Savepoints of `flink stop`
lie in one folder for all jobs, whatever a job is configured with. Their names hold the first digits of an id,
which are the same for every job of a name. Where an id cannot be chosen, as on an application cluster and in
earlier releases, a note in the job's folder tells which it was.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ferryline.registry.errors import NotFoundError, StoreUnreachableError

CHECKPOINTS = "execution.checkpointing.dir"
SAVEPOINTS = "execution.checkpointing.savepoint-dir"
RESTORE = "execution.state-recovery.path"
JOB_ID = "$internal.pipeline.job-id"
"""Flink's internal option for a job's id, which its own application mode sets."""
TARGET = "execution.target"
EMBEDDED = "embedded"
"""The target of an application cluster, whose executor takes no id from a job."""
NEWEST = "newest"
"""The value of `--restore` that means the newest state there is."""

_METADATA = "_metadata"
_NOTE = "submitted"
_SHORT_ID = 6  # characters of a job's id in the name of a savepoint


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a folder's listing; `modified` is in milliseconds, by the store's clock."""

    name: str
    is_folder: bool
    modified: int


class Listing(Protocol):
    """Lists a folder that may not exist; raises `StoreUnreachableError`."""

    def __call__(self, folder: str) -> Iterable[Entry]:
        """The entries of `folder`, none where there is no such folder."""
        ...


@dataclass(frozen=True, slots=True)
class StateFolders:
    """Where a job's state lies; empty where the cluster names no folder.

    Attributes:
        checkpoints: the job's own, with a folder for each id that it had.
        savepoints: the cluster's.
        id_begins: how the id of each job of this name begins.
    """

    checkpoints: str
    savepoints: str
    id_begins: str

    @classmethod
    def of(cls, configured: Callable[[str, str], str], name: str) -> StateFolders:
        """Those of the job called `name`.

        Args:
            configured: gives a setting of the cluster, or the default that is passed.
            name: the job's name.
        """
        checkpoints, savepoints = (configured(key, "").rstrip("/") for key in (CHECKPOINTS, SAVEPOINTS))
        begins = hashlib.sha256(name.encode()).hexdigest()[:_SHORT_ID]
        return cls(f"{checkpoints}/{name}" if checkpoints else "", savepoints, begins)

    @property
    def settings(self) -> dict[str, str]:
        """What makes the job use them."""
        return {CHECKPOINTS: self.checkpoints} if self.checkpoints else {}

    def new_job_id(self) -> str:
        """Returns an id that no job has had: 32 hexadecimal digits."""
        return self.id_begins + secrets.token_hex(16)[_SHORT_ID:]


def restore_path(wanted: str, folders: StateFolders, listing: Listing) -> str | None:
    """The state to go on from; None where `newest` is wanted and there is none yet.

    Args:
        wanted: `newest`, or the URL of a checkpoint or savepoint.
        folders: those of the job.
        listing: lists folders.

    Raises:
        NotFoundError: `newest` is wanted, and the cluster keeps its checkpoints in memory.
        StoreUnreachableError: the folders cannot be listed.
    """
    if wanted != NEWEST:
        return wanted
    if not folders.checkpoints:
        raise NotFoundError(
            f"there is no newest checkpoint: Flink's configuration names no folder; set {CHECKPOINTS}"
        )
    ids = [entry.name for entry in listing(folders.checkpoints) if entry.is_folder]
    found = [state for job in ids for state in _complete(f"{folders.checkpoints}/{job}", "chk-", listing)]
    if folders.savepoints:
        begins = {folders.id_begins, *(job[:_SHORT_ID] for job in ids)}
        prefixes = tuple(f"savepoint-{each}-" for each in sorted(begins))
        found += _complete(folders.savepoints, prefixes, listing)
    return max(found, default=(0, None))[1]


def flink_listing(jvm: Any) -> Listing:
    """Lists by Flink's own file systems, so with its plugins, credentials and endpoints.

    Args:
        jvm: the client's Java side.
    """

    def entries(folder: str) -> list[Entry]:
        path = jvm.org.apache.flink.core.fs.Path(folder)
        try:
            found = path.getFileSystem().listStatus(path) or ()
        except Exception as error:
            if "FileNotFoundException" in str(error):
                return []
            raise _unreachable(folder, error) from error
        return [Entry(each.getPath().getName(), each.isDir(), each.getModificationTime()) for each in found]

    return entries


def note_job(jvm: Any, folders: StateFolders, job_id: str) -> None:
    """Note in the job's folder that it has this id.

    Raises:
        StoreUnreachableError: the folder cannot be written.
    """
    if not folders.checkpoints:
        return
    path = jvm.org.apache.flink.core.fs.Path(f"{folders.checkpoints}/{job_id}/{_NOTE}")
    try:
        mode = getattr(jvm.org.apache.flink.core.fs, "FileSystem$WriteMode").OVERWRITE
        stream = path.getFileSystem().create(path, mode)
        stream.write(job_id.encode())
        stream.close()
    except Exception as error:
        raise _unreachable(folders.checkpoints, error) from error


def _complete(folder: str, prefixes: str | tuple[str, ...], listing: Listing) -> Iterator[tuple[int, str]]:
    """The states in a folder whose metadata is written, which is the last that is."""
    for state in listing(folder):
        if state.is_folder and state.name.startswith(prefixes):
            path = f"{folder}/{state.name}"
            yield from ((file.modified, path) for file in listing(path) if file.name == _METADATA)


def _unreachable(folder: str, error: Exception) -> StoreUnreachableError:
    cause = next((line.strip() for line in str(error).splitlines() if "Exception" in line), str(error)[:200])
    return StoreUnreachableError(
        f"{folder} cannot be used ({cause}); check Flink's s3.* settings, or name the state to restore with "
        "--restore URL"
    )
