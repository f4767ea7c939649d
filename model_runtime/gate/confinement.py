"""The limits a child puts on itself before it touches a candidate; none of them can be taken back."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
from pathlib import Path

from ferryline.model_runtime.gate.limits import MIB, GateLimits

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# half of what threads get by default: what would overflow theirs overflows here first
_STACK_BYTES = 4 * MIB
_DESCRIPTORS = 64
_C_LIBRARY = ctypes.CDLL(None, use_errno=True)


def confine(limits: GateLimits, size: int, *, keeper: int) -> None:
    """Limit this process for a candidate of `size` bytes; end with the process `keeper`, which forked it."""
    _prefer_as_victim()
    _limit(resource.RLIMIT_AS, _address_space() + limits.memory_bytes(size))
    seconds = math.ceil(limits.cpu_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    _limit(resource.RLIMIT_STACK, _STACK_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    _die_with(keeper)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _prefer_as_victim() -> None:
    # should the machine or the container run short first, the kernel ends this process, not its neighbours
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _die_with(keeper: int) -> None:
    prctl = getattr(_C_LIBRARY, "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != keeper:  # it died before the line above
        os._exit(1)
