"""The real `ferry-server` on free ports, as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.grpc_server import folder_site
from tests.grpc_server.running_server import ROW, RunningServer, added, plain_client
from tests.support.waiting import DEADLINE

__all__ = ["ROW", "START_SECONDS", "ServerProcess", "Site", "added", "plain_client"]

COMMAND = str(Path(sys.executable).with_name("ferry-server"))
START_SECONDS = DEADLINE


class ServerProcess(RunningServer):
    """A running server; its log is in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file
        super().__init__(process.pid)

    def log(self) -> str:
        return self._log_file.read_text()

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Site(folder_site.Site):
    """A folder registry and the processes that a test starts on it."""

    def command(self, models: Sequence[str], flags: Sequence[str]) -> list[str]:
        """The command line of a server."""
        return [COMMAND, *self.flags(models, flags)]

    @contextmanager
    def server(self, *models: str, flags: Sequence[str] = ()) -> Iterator[ServerProcess]:
        """A server that listens, until the block is left."""
        log_file = self.folder / f"server-{len(list(self.folder.glob('server-*')))}.log"
        with log_file.open("wb") as log:
            named = models or ([] if "--all" in flags else ["m"])
            process = subprocess.Popen(self.command(named, flags), stderr=log)
        try:
            server = ServerProcess(process, log_file)
        except BaseException:
            process.kill()
            process.wait()
            raise
        try:
            yield server
        finally:
            server.close()

    def run_to_its_end(self, *models: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run the command, which is to end by itself."""
        command = self.command(models or ["m"], flags)
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
