"""Starting and stopping server processes, each known by its pid and creation time.

Every process carries the stack's mark in its environment and hands it to its children, so that workers whose
parent was killed are still found, and nothing else ever is.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from ferryline.deploy.stack.state import ProcessRecord

MARK_VARIABLE = "FERRY_STACK_MARK"

# the boot time that creation times are counted from moves with the clock's corrections
_CLOCK_TOLERANCE_S = 2.0
_POLL_S = 0.05
_TAIL_BYTES = 64 * 1024


def spawn(
    command: Sequence[str], *, environ: Mapping[str, str], mark: str, folder: Path, log: Path, address: str
) -> ProcessRecord:
    """Start a server detached from the terminal, its output in a fresh log; the old one is kept as `.1`."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**environ, MARK_VARIABLE: mark},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        created = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:
        created = 0.0
    process.returncode = 0  # it outlives this object, whose destructor would warn about that
    return ProcessRecord(pid=process.pid, created=created, log=log, address=address)


def is_alive(record: ProcessRecord) -> bool:
    """Whether the very process of a record still runs."""
    return _find(record) is not None


def memory_of(record: ProcessRecord) -> int:
    """Bytes of memory of a process and its children: the proportional share if known, else resident."""
    process = _find(record)
    if process is None:
        return 0
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                full = each.memory_full_info()
                total += getattr(full, "pss", 0) or full.rss
    return total


def stop(records: Iterable[ProcessRecord], *, deadline_s: float) -> None:
    """Ask processes to end, all at once; kill those that still run at the deadline."""
    end_all([process for process in map(_find, records) if process is not None], deadline_s=deadline_s)


def signal_process(record: ProcessRecord, number: int) -> bool:
    """Send a signal to the very process of a record; False if it does not run any more."""
    process = _find(record)
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
    return True


def end_all(processes: Sequence[psutil.Process], *, deadline_s: float) -> None:
    """End processes: SIGTERM, then SIGKILL at the deadline."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    running = _wait_gone(processes, deadline_s)
    for process in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_gone(running, deadline_s)


def wait_gone(record: ProcessRecord, *, deadline_s: float) -> None:
    """Wait until the very process of a record has ended, at most that many seconds."""
    process = _find(record)
    if process is not None:
        _wait_gone([process], deadline_s)


def marked(marks: str | tuple[str, ...]) -> list[psutil.Process]:
    """Every running process whose mark begins with one of these."""
    return [
        each for each in psutil.process_iter() if each.pid != os.getpid() and _mark_of(each).startswith(marks)
    ]


def tail(log: Path, lines: int) -> str:
    """The last lines of a log file; empty if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _wait_gone(processes: Sequence[psutil.Process], deadline_s: float) -> list[psutil.Process]:
    end = time.monotonic() + deadline_s
    running = [process for process in processes if not _has_ended(process)]
    while running and time.monotonic() < end:
        time.sleep(_POLL_S)
        running = [process for process in running if not _has_ended(process)]
    return running


def _has_ended(process: psutil.Process) -> bool:
    try:
        if not process.is_running():
            return True
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
        # dead but not yet collected: ours to collect if we are its parent; in a container nobody else may
        if process.ppid() == os.getpid():
            process.wait(timeout=1)
    except psutil.Error:
        return True
    return True


def _mark_of(process: psutil.Process) -> str:
    try:
        return process.environ().get(MARK_VARIABLE, "")
    except (psutil.Error, OSError):  # another user's, or just gone
        return ""


def _find(record: ProcessRecord) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.created) <= _CLOCK_TOLERANCE_S
    except psutil.Error:
        return None
    return process if same and not _has_ended(process) else None
