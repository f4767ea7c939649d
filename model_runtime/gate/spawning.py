"""Starting a keeper: a fresh interpreter that inherits nothing from the program but one socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ferryline.model_runtime.gate.errors import GateUnavailableError
from ferryline.model_runtime.gate.protocol import HELLO, MAX_PACKET, tame

_MODULE = "ferryline.model_runtime.gate.keeper_process"
_START_SECONDS = 60.0  # half a second, unless the machine is very busy
_PASSED_ON = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "SYSTEMROOT", "TZ")
_ONE_THREAD = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class RunningKeeper:
    """A keeper that answers: its process, and our end of the socket."""

    process: subprocess.Popen[bytes]
    control: socket.socket


def start_keeper(idle_seconds: float) -> RunningKeeper:
    """Start a keeper and wait until it is ready.

    Raises:
        GateUnavailableError: it does not start.
    """
    try:
        return _start(idle_seconds)
    except OSError as error:
        raise GateUnavailableError(f"the load gate's helper cannot be started: {error}") from error


def _start(idle_seconds: float) -> RunningKeeper:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(ours.close)
        with theirs, tempfile.TemporaryFile() as complaints:
            process = _spawn(theirs, idle_seconds, complaints)
            theirs.close()
            if _is_ready(ours):
                on_failure.pop_all()
                return RunningKeeper(process, ours)
            process.kill()
            process.wait()
            raise GateUnavailableError(
                f"the load gate's helper ({process.args!r}) does not start: {_last_words(complaints)}"
            )


def keeper_environment() -> dict[str, str]:
    """What a keeper may know: no credentials, and as few threads as its libraries can do with."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= dict.fromkeys(_ONE_THREAD, "1")
    # its thread would be lost in every fork, with the locks that it holds
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    # no code of others, and no look into every installed distribution for it
    environment["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    environment["PYTHONPATH"] = os.pathsep.join(import_path())
    return environment


def import_path() -> list[str]:
    """Where this program found its modules, this package first; never the working directory as such."""
    here = str(Path(__file__).absolute().parents[3])
    return list(dict.fromkeys([here, *(entry for entry in sys.path if entry)]))


def _spawn(control: socket.socket, idle_seconds: float, complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    python = sys.executable or shutil.which("python3") or "python3"
    return subprocess.Popen(  # noqa: S603 - this interpreter and a module of this package
        [python, "-P", "-m", _MODULE, str(control.fileno()), str(idle_seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        env=keeper_environment(),
        pass_fds=[control.fileno()],
        close_fds=True,
        cwd="/",
        start_new_session=True,  # signals from the terminal are for the program
    )


def _is_ready(control: socket.socket) -> bool:
    control.settimeout(_START_SECONDS)
    try:
        return control.recv(MAX_PACKET) == HELLO
    except OSError:
        return False


def _last_words(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
    return tame(lines[-1]) if lines else "it said nothing"
