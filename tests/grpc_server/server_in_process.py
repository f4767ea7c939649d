"""`ferry-server` on a thread of the test's own process: real sockets, and all but the process boundary.

It is told by the command line's own flags. What belongs to a process is put aside: instead of signals there
is `ask_to_stop`, and what it logs is kept instead of being written to standard error.
"""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import pytest
import structlog
import typer

from ferryline.grpc_server import cli, process
from ferryline.registry import logs
from tests.grpc_server import folder_site
from tests.grpc_server.running_server import RunningServer
from tests.support.waiting import DEADLINE

PROGRAM = "ferry-server"


class _Log(io.TextIOBase):
    """What every server in this process is told to write its log to."""

    def __init__(self) -> None:
        self.readers: list[list[str]] = []

    def write(self, text: str) -> int:
        for reader in self.readers:
            reader.append(text)
        return len(text)


_LOG = _Log()


class _Thread(threading.Thread):
    """Runs the command until it ends by itself or is asked to stop."""

    def __init__(self, flags: Sequence[str]) -> None:
        super().__init__(name=PROGRAM)
        self.asked: Future[None] = Future()
        self.error: BaseException | None = None
        self._flags = list(flags)

    def run(self) -> None:
        try:
            _command().main(self._flags, PROGRAM, standalone_mode=False)
        except BaseException as error:  # noqa: BLE001 - raised where the test waits for the end
            self.error = error


@functools.cache
def _command() -> Any:
    return typer.main.get_command(cli.app)


async def _asked_to_stop() -> None:
    thread = threading.current_thread()
    assert isinstance(thread, _Thread), "the server has started and was expected to refuse"
    await asyncio.wrap_future(thread.asked)


@contextmanager
def _without_a_process(lines: list[str]) -> Iterator[None]:
    """Put aside what a process has and a thread has not; what is logged meanwhile is added to `lines`."""
    logged, interval = structlog.get_config(), sys.getswitchinterval()
    plain = logging.StreamHandler(_LOG)
    plain.setLevel(logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        logs.configure_logs(logs.LogFormat.JSON)
        # a logger that is kept would go on when this server is gone
        structlog.configure(
            logger_factory=structlog.PrintLoggerFactory(_LOG), cache_logger_on_first_use=False
        )
        patch.setattr(logs, "configure_logs", lambda _: None)
        patch.setattr(process, "asked_to_stop", _asked_to_stop)
        for name in ("GRPC_VERBOSITY", "OPENBLAS_NUM_THREADS"):
            patch.setenv(name, os.environ.get(name, ""))  # what the command sets is put back
            patch.delenv(name)
        logging.getLogger().addHandler(plain)
        _LOG.readers.append(lines)
        try:
            yield
        finally:
            _LOG.readers = [reader for reader in _LOG.readers if reader is not lines]
            logging.getLogger().removeHandler(plain)
            sys.setswitchinterval(interval)
            structlog.configure(**logged)


class ServerInProcess(RunningServer):
    """A running server."""

    def __init__(self, thread: _Thread, lines: list[str]) -> None:
        self._thread = thread
        self._lines = lines
        super().__init__(os.getpid())

    def log(self) -> str:
        return "".join(self._lines) + ("" if self._thread.error is None else repr(self._thread.error))

    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def ask_to_stop(self) -> None:
        if not self._thread.asked.done():
            self._thread.asked.set_result(None)

    def wait(self) -> int:
        self._thread.join(DEADLINE)
        assert self.has_ended(), f"it does not stop\n{self.log()}"
        if self._thread.error is not None:
            raise self._thread.error
        return 0

    def close(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            # nobody is there who would have to turn away first
            patch.setattr(process, "LINGER", 0)
            patch.setattr(process, "QUIET_SECONDS", 0)
            super().close()


class Site(folder_site.Site):
    """A folder registry and the servers that a test starts on it, within its own process."""

    @contextmanager
    def server(self, *models: str, flags: Sequence[str] = ()) -> Iterator[ServerInProcess]:
        """A server that listens, until the block is left."""
        named = models or ([] if "--all" in flags else ["m"])
        lines: list[str] = []
        with _without_a_process(lines):
            thread = _Thread(self.flags(named, flags))
            thread.start()
            try:
                server = ServerInProcess(thread, lines)
            except BaseException:
                if not thread.asked.done():
                    thread.asked.set_result(None)
                thread.join(DEADLINE)
                raise
            try:
                yield server
            finally:
                server.close()

    def run_to_its_end(self, *models: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run the command as `main` does, which is to end by itself."""
        arguments = [PROGRAM, *self.flags(models or ["m"], flags)]
        out, err = io.StringIO(), io.StringIO()
        with (
            _without_a_process([]),
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            patch.setattr("sys.argv", arguments)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return subprocess.CompletedProcess(
            arguments, int(str(ended.value.code)), out.getvalue(), err.getvalue()
        )
