"""Locks between processes, held by the operating system so that a crash frees them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ferryline.deploy.stack.errors import StackBusyError


@contextmanager
def exclusive(file: Path) -> Iterator[None]:
    """Hold a lock file or give up at once.

    Raises:
        StackBusyError: another process holds it.
    """
    with file.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise StackBusyError(stream.read().strip()) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextmanager
def queued(file: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it."""
    with file.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
