"""The keeper: a small clean process that has ONNX Runtime imported, and forks a child for each candidate.

Started by `ferryline.model_runtime.gate.keeper` with a socket of its program as its only open
file. It lives as long as that socket is open and something is asked of it now and then. It never reads a
candidate itself.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ferryline.model_runtime.gate.child import run_child
from ferryline.model_runtime.gate.handover import write_all
from ferryline.model_runtime.gate.priming import prime
from ferryline.model_runtime.gate.protocol import (
    HELLO,
    MAX_PACKET,
    Ending,
    Request,
    encode_ending,
    encode_unavailable,
)

_LEAST_FILES, _MAX_FILES = 2, 3
_MAX_STDERR = 4096


@dataclass(slots=True)
class _Child:
    """A candidate being judged.

    Args:
        pid: its process, the first of a group of its own.
        deadline: when it must have ended, by the monotonic clock.
        answer: the pipe to the program, open here so that its end can be told.
        stderr: the pipe from the child; it closes when the child has ended.
    """

    pid: int
    deadline: float
    answer: int
    stderr: int
    overdue: bool = False
    said: bytearray = field(default_factory=bytearray)


class KeeperProcess:
    """Serves one program through `control`, and ends after `idle_seconds` without a candidate."""

    def __init__(self, control: socket.socket, idle_seconds: float) -> None:
        self._control = control
        self._idle_seconds = idle_seconds
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._idle_since = time.monotonic()

    def serve(self) -> None:
        """Until the program is gone, or has no more use for this process."""
        self._selector.register(self._control, selectors.EVENT_READ)
        try:
            while self._turn():
                pass
        finally:
            for child in self._children.values():
                _kill(child)

    def _turn(self) -> bool:
        for key, _ in self._selector.select(self._pause()):
            if key.fileobj is self._control:
                if not self._take_request():
                    return False
            else:
                self._hear(self._children[key.fd])
        now = time.monotonic()
        for child in self._children.values():
            if now >= child.deadline and not child.overdue:
                child.overdue = True
                _kill(child)
        return bool(self._children) or now - self._idle_since < self._idle_seconds

    def _pause(self) -> float:
        deadlines = [child.deadline for child in self._children.values() if not child.overdue]
        if not self._children:
            deadlines.append(self._idle_since + self._idle_seconds)
        # a child that was ended closes its pipe at once; the second is for what nobody thought of
        return max(0.0, min(deadlines, default=time.monotonic() + 1) - time.monotonic())

    def _take_request(self) -> bool:
        try:
            packet, files, flags, _ = socket.recv_fds(self._control, MAX_PACKET, _MAX_FILES)
        except OSError:
            return False
        if not packet:
            return False
        try:
            self._try_to_start(packet, files, is_whole=not flags & socket.MSG_CTRUNC)
        finally:
            # the child has its own; the pipe for the answer is kept until it has ended
            for file in files[1:]:
                os.close(file)
        return True

    def _try_to_start(self, packet: bytes, files: list[int], *, is_whole: bool) -> None:
        try:
            # the system drops those that it has no descriptor for, the golden rows first
            if not is_whole or len(files) < _LEAST_FILES:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # noqa: TRY301 - as fork would
            self._start(Request.decode(packet), files)
        except OSError as error:  # no process, no memory, no descriptor: other candidates must not suffer
            if files:
                with contextlib.suppress(OSError):
                    write_all(files[0], encode_unavailable(f"its process could not be started ({error})"))
                os.close(files[0])

    def _start(self, request: Request, files: list[int]) -> None:
        stderr, child_stderr = os.pipe()
        keeper = os.getpid()
        try:
            self._selector.register(stderr, selectors.EVENT_READ)
            pid = os.fork()
        except OSError:
            with contextlib.suppress(KeyError):
                self._selector.unregister(stderr)
            os.close(stderr)
            os.close(child_stderr)
            raise
        if pid == 0:
            os.setpgid(0, 0)
            run_child(request, files, child_stderr, keeper=keeper)
        with contextlib.suppress(OSError):  # it did so itself already, and may even have ended
            os.setpgid(pid, pid)
        os.close(child_stderr)
        deadline = time.monotonic() + request.limits.wall_seconds
        self._children[stderr] = _Child(pid, deadline, files[0], stderr)

    def _hear(self, child: _Child) -> None:
        text = os.read(child.stderr, _MAX_STDERR)
        child.said = (child.said + text)[-_MAX_STDERR:]
        if not text:
            self._finish(child)

    def _finish(self, child: _Child) -> None:
        # one that has ended keeps its status; one that only closed its pipe has no business to live on
        _kill(child)
        _, status, usage = os.wait4(child.pid, 0)
        self._selector.unregister(child.stderr)
        del self._children[child.stderr]
        os.close(child.stderr)
        with contextlib.suppress(OSError):  # nobody waits for the answer any more
            write_all(child.answer, encode_ending(_ending(child, status, usage)))
        os.close(child.answer)
        self._idle_since = time.monotonic()


def _ending(child: _Child, status: int, usage: resource.struct_rusage) -> Ending:
    code = os.waitstatus_to_exitcode(status)
    return Ending(
        code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        overdue=child.overdue,
        grown=max(0, usage.ru_maxrss * 1024 - resident_bytes()),
        stderr=child.said.decode("utf-8", "replace"),
        cpu_seconds=usage.ru_utime + usage.ru_stime,
    )


def resident_bytes() -> int:
    """Bytes of memory that this process has now.

    Not its peak: Linux keeps that across exec, so a helper that a large program started seems as large as
    that program was, and nothing that its children take seems to be growth.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _kill(child: _Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def main() -> None:
    """Serve the program at the other end of the socket that the command line names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program; its end is ours
    control = socket.socket(fileno=int(sys.argv[1]))
    prime()
    # children share these pages for as long as nobody writes to them, the collector included
    gc.collect()
    gc.freeze()
    control.send(HELLO)
    KeeperProcess(control, float(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
