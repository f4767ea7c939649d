"""The state file: all a trainer needs to go on where it stopped, in one file that is replaced at once.

    8 bytes     magic, the last of them the version of this layout
    32 bytes    SHA-256 of the rest
    the rest    a NumPy archive (NEP 1): the arrays, and `document`, JSON as bytes

Nothing in it is code: arrays are read with `allow_pickle=False`.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from ferryline.registry.errors import UsageError
from ferryline.streams.pipeline import ClassLabel, Pipeline
from ferryline.trainer.errors import StateInUseError, StateUnusableError, StateUnwritableError
from ferryline.trainer.progress import Progress

MAGIC = b"FRYTRN\x00\x01"
_HEADER = len(MAGIC) + hashlib.sha256().digest_size
_DOCUMENT = "document"
_PRIVATE = 0o700

Arrays = Mapping[str, npt.NDArray[Any]]


class Shape(BaseModel):
    """What a pipeline must have in common with a state to continue from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    model: str
    topic: str
    features: tuple[str, ...]
    label: str
    classes: tuple[ClassLabel, ...]

    @classmethod
    def of(cls, pipeline: Pipeline) -> Shape:
        """The shape of `pipeline`."""
        source = pipeline.source
        return cls(
            pipeline=pipeline.name,
            model=pipeline.model,
            topic=source.topic,
            features=source.features.names,
            label=source.label.field,
            classes=source.label.classes,
        )


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    shape: Shape
    progress: Progress


def encode_state(shape: Shape, progress: Progress, arrays: Arrays) -> bytes:
    """The bytes of a state file."""
    document = _Document(shape=shape, progress=progress).model_dump_json().encode()
    archive = io.BytesIO()
    np.savez(archive, **{_DOCUMENT: np.frombuffer(document, np.uint8), **arrays})
    payload = archive.getvalue()
    return MAGIC + hashlib.sha256(payload).digest() + payload


def decode_state(data: bytes, *, expected: Shape, where: str) -> tuple[Progress, dict[str, npt.NDArray[Any]]]:
    """Read the bytes of a state file.

    Raises:
        StateUnusableError: they are damaged, none of ours, or of a pipeline of another shape.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise StateUnusableError(_remedy(f"{where} is no trainer's state, or one of another layout"))
    payload = data[_HEADER:]
    if hashlib.sha256(payload).digest() != data[len(MAGIC) : _HEADER]:
        raise StateUnusableError(_remedy(f"{where} is damaged: its checksum does not hold"))
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        document = _Document.model_validate_json(arrays.pop(_DOCUMENT).tobytes())
    except (ValidationError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StateUnusableError(_remedy(f"{where} was written by another version ({error})")) from error
    _require_shape(document.shape, expected, where)
    return document.progress, arrays


class StateFile:
    """The state of `pipeline` in `folder`; one process at a time may hold it.

    Raises:
        StateUnwritableError: the folder cannot be written.
    """

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.path = folder / f"{pipeline.name}.state"
        self._shape = Shape.of(pipeline)
        self._lock: int | None = None
        try:
            folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def acquire(self) -> None:
        """Keep other trainers from this state until `release`, or until the process ends.

        Raises:
            StateInUseError: one has it.
        """
        try:
            self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateInUseError(
                f"another ferry-trainer uses {self.path}; stop it, or give this one its own --state folder"
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error

    def release(self) -> None:
        """Let other trainers have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def load(self) -> tuple[Progress, dict[str, npt.NDArray[Any]]] | None:
        """The state, None where there is none yet.

        Raises:
            StateUnusableError: it cannot be continued from.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}; check its rights") from error
        return decode_state(data, expected=self._shape, where=str(self.path))

    def save(self, progress: Progress, arrays: Arrays) -> None:
        """Replace the state; after a crash at any moment there is the old one or the new one, whole.

        Raises:
            StateUnwritableError: the disk does not take it.
        """
        data = encode_state(self._shape, progress, arrays)
        try:
            self._replace(data)
        except OSError as error:
            raise self._unwritable(error) from error

    def _replace(self, data: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        finally:
            Path(name).unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the new name must survive a crash too
        finally:
            os.close(folder)

    def _unwritable(self, error: OSError) -> StateUnwritableError:
        return StateUnwritableError(
            f"the state {self.path} cannot be written: {error.strerror}; "
            "name another folder with --state or FERRY_STATE"
        )


def _require_shape(found: Shape, expected: Shape, where: str) -> None:
    differing = [name for name in Shape.model_fields if getattr(found, name) != getattr(expected, name)]
    # True == 1 and False == 0: a switch from numbers to booleans shows in the type only
    if "classes" not in differing and type(found.classes[0]) is not type(expected.classes[0]):
        differing.append("classes")
    if differing:
        raise StateUnusableError(
            _remedy(f"{where} belongs to a pipeline with other {', '.join(differing)} than this one")
        )


def _remedy(finding: str) -> str:
    return (
        f"{finding}. It was left as it is: restore it from a backup, name another folder with --state, "
        "or learn anew with --from-scratch (which replaces it)"
    )
