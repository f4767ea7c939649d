"""What an error says about the next try: one table for every thread that retries; pure.

    what is raised                                        kind
    ----------------------------------------------------  --------------------
    RefusedError of a gate that judged a file             FINAL_FOR_FILE
    RefusedError of a gate that judged an entry           FINAL_FOR_GENERATION
    OSError, MemoryError, a native text that tells of     TRANSIENT
      exhausted memory, files, disk or threads
    any other FerryError                                  TRANSIENT
    TypeError, AssertionError, KeyError and their like    OURS
    whatever is not listed                                TRANSIENT

What is transient or ours is retried with back-off, counted and shown; what is ours, logged with a traceback.
"""

from __future__ import annotations

import errno
import re
from enum import Enum, auto

from ferryline.registry.errors import FerryError, RefusedError


class ErrorKind(Enum):
    """What an error says about the next try."""

    TRANSIENT = auto()
    """The next try may succeed."""
    FINAL_FOR_FILE = auto()
    """No try with these bytes can succeed; another file may."""
    FINAL_FOR_GENERATION = auto()
    """No try of this channel entry can succeed; a newer entry, of the same file too, may."""
    OURS = auto()
    """A fault of this program; retried as if transient, and logged with its traceback."""

    @property
    def is_final(self) -> bool:
        """Whether trying the same again is of no use."""
        return self in {ErrorKind.FINAL_FOR_FILE, ErrorKind.FINAL_FOR_GENERATION}


GENERATION_GATES = frozenset({"blob", "contract", "digest", "manifest", "regression", "schema", "signature"})
"""Gates that judge an entry, its manifest, or what serves before it; all others judge a file's bytes."""

_PROGRAMMING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)

_MEMORY_SIGNS = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "memoryerror",
    "out of memory",
    "cannot allocate",
)
_RESOURCE_SIGNS = (
    "too many open files",
    "no space left on device",
    "disk quota exceeded",
    "input/output error",
    "resource temporarily unavailable",
)
_RESOURCE_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EDQUOT,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
# as ONNX Runtime and Python write them
_ERRNO = re.compile(r"(?:system error number|errcode\s*=|\[errno)\s*(\d+)")


def kind_of(error: BaseException) -> ErrorKind:
    """Returns what `error` says about the next try."""
    match error:
        case RefusedError():
            return (
                ErrorKind.FINAL_FOR_GENERATION if error.gate in GENERATION_GATES else ErrorKind.FINAL_FOR_FILE
            )
        case FerryError() | OSError() | MemoryError():
            return ErrorKind.TRANSIENT
    if is_exhaustion(str(error)):
        return ErrorKind.TRANSIENT
    return ErrorKind.OURS if isinstance(error, _PROGRAMMING_ERRORS) else ErrorKind.TRANSIENT


def is_memory_exhaustion(text: str) -> bool:
    """Returns whether an error's text, or the last words of a process, tell that memory ran out."""
    lower = text.lower()
    return any(sign in lower for sign in _MEMORY_SIGNS)


def is_exhaustion(text: str) -> bool:
    """Returns whether an error's text tells that memory, files, disk or threads of the machine ran out."""
    lower = text.lower()
    if is_memory_exhaustion(lower) or any(sign in lower for sign in _RESOURCE_SIGNS):
        return True
    return any(int(number) in _RESOURCE_ERRNOS for number in _ERRNO.findall(lower))
