"""One local stack for one run of the tests: its workers share it, and nothing of it outlives the run.

The run that holds the lock of the checkout's folder uses the stack there and removes what a killed run left
behind; a run beside it gets a folder of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import psutil

from ferryline.deploy.stack.errors import StackUsageError
from ferryline.deploy.stack.local import Addresses, LocalStack
from ferryline.deploy.stack.locking import queued
from ferryline.deploy.stack.process import end_all
from tests.support.ports import private_ports

HOME_VARIABLE = "FERRY_TEST_STACK"
"""The folder of the run's stack, which workers inherit."""
RUN_VARIABLE = "FERRY_TEST_RUN"
"""The run's random name, which every process that a test starts inherits."""

SLOTS = 8
"""Task slots of the shared cluster: tests of two workers run jobs at the same time."""

FOLDER = Path(__file__).parents[2] / ".test-stack"
"""The folder that the runs of a checkout share, one after the other."""

_LEFT_BEHIND_S = 10.0


class TestRun:
    """One run of the tests, from the process that leads it.

    Args:
        folder: where the stack of the run lies, unless another run that still goes on has it.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.name = uuid.uuid4().hex
        self._folder = folder
        self._lock: IO[str] | None = None
        self.home = self._claim()
        os.environ[HOME_VARIABLE] = str(self.home)
        os.environ[RUN_VARIABLE] = self.name

    def end(self) -> list[str]:
        """Take the stack down; returns the command lines of what else tests left running, ended now."""
        _take_down(self.home)
        left = _processes_of(self.name)
        lines = [_command_line(process) for process in left]
        end_all(left, deadline_s=_LEFT_BEHIND_S)
        if self._lock is None:
            shutil.rmtree(self.home, ignore_errors=True)
        else:
            self._lock.truncate(0)
            self._lock.close()
        return lines

    def _claim(self) -> Path:
        """Returns the folder of this run's stack, once whatever a killed run left there has ended."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        lock = (self._folder / "run.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return Path(tempfile.mkdtemp(prefix="ferry-test-stack-"))
        self._lock = lock
        lock.seek(0)
        _take_down(self._folder)
        if killed := lock.read().strip():
            end_all(_processes_of(killed), deadline_s=_LEFT_BEHIND_S)
        lock.truncate(0)
        lock.write(self.name)
        lock.flush()
        return self._folder


class SharedStack:
    """The run's stack as one worker sees it."""

    def __init__(self) -> None:
        self.stack = LocalStack(home=Path(os.environ[HOME_VARIABLE]))

    def up(self, parts: Iterable[str]) -> Addresses:
        """Start what of `parts` does not run yet; workers that ask at the same time take turns."""
        with self._turn() as ports:
            return self.stack.up(parts, ports=ports, flink_slots=SLOTS)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[dict[str, int]]:
        root = self.stack.home.root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with queued(root / "turn.lock"):
            # ports that a part already has stay as they are
            yield {} if (root / "state.json").exists() else private_ports()


def _take_down(home: Path) -> None:
    """Stop a stack and delete what it stored."""
    try:
        LocalStack(home=home).down(wipe=True)
    except StackUsageError:  # another release wrote its state; its processes carry the run's name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700, exist_ok=True)
    (home / "state.json").unlink(missing_ok=True)


def _processes_of(run: str) -> list[psutil.Process]:
    """Every process that carries the run's name, but for this one and those that it descends from."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in own or process.environ().get(RUN_VARIABLE) != run:
                continue
            if not _serves_multiprocessing(process):
                found.append(process)
    return found


def _serves_multiprocessing(process: psutil.Process) -> bool:
    """Whether a process is one that multiprocessing keeps beside ours: it ends by itself with ours."""
    helpers = ("from multiprocessing.resource_tracker ", "from multiprocessing.forkserver ")
    return any(word.startswith(helpers) for word in process.cmdline())


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200] or f"process {process.pid}"
    except psutil.Error:
        return f"process {process.pid}"
