"""The demo's processes: the very commands a user would type, their logs in one folder."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from ferryline.deploy.demo.errors import DemoFailedError
from ferryline.deploy.stack.local import LocalStack
from ferryline.deploy.stack.process import tail

STOP_SECONDS = 20.0
SUBMIT_SECONDS = 600.0
_TAIL_LINES = 12
_JOB_ID = re.compile(r"JobID ([0-9a-f]{32})")


def command_path(name: str) -> str:
    """The console script `name` of this environment."""
    return str(Path(sys.executable).with_name(name))


@dataclass(slots=True)
class Service:
    """A process that was started, and the log it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, name: str, command: Sequence[str], environ: Mapping[str, str], logs: Path) -> Service:
        """Start `command`; standard error goes to its log, standard output to `<name>.out` beside it."""
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.log"
        with log.open("wb") as err, (logs / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=out, stderr=err)
        return cls(name, process, log)

    def require_alive(self) -> None:
        """Return while the process runs.

        Raises:
            DemoFailedError: it ended.
        """
        code = self.process.poll()
        if code is not None:
            raise DemoFailedError(
                f"{self.name} ended with status {code}; see {self.log}: {tail(self.log, _TAIL_LINES)}"
            )

    def stop(self) -> int:
        """Ask it to end, and end it when it does not; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait for the end of this: a process that was started and is in no list yet, nobody stops."""
    held: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if held:
        raise KeyboardInterrupt


@contextlib.contextmanager
def running(services: list[Service]) -> Iterator[None]:
    """On leaving, stop whatever `services` holds by then, the last one first."""
    try:
        yield
    finally:
        for service in reversed(services):
            service.stop()


class ScoringJob:
    """The scoring job on the stack's Flink, submitted with the stock `flink run`."""

    def __init__(self, stack: LocalStack, pipeline_file: Path, logs: Path) -> None:
        self._flink = stack.addresses().flink
        self._log = logs / "flink-run.log"
        argv, environ = stack.flink_command(
            "run", "--detached", "-pym", "ferryline.flink_scoring.job", "--pipeline", str(pipeline_file)
        )
        self.id = self._submit(argv, environ)

    def cancel(self) -> None:
        """Stop the job; a Flink that is gone has stopped it already."""
        with contextlib.suppress(httpx.HTTPError):
            httpx.patch(f"{self._flink}/jobs/{self.id}", params={"mode": "cancel"}, timeout=10)

    def _submit(self, argv: Sequence[str], environ: Mapping[str, str]) -> str:
        try:
            done = subprocess.run(
                argv, env=dict(environ), capture_output=True, text=True, timeout=SUBMIT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DemoFailedError(f"`flink run` did not end within {SUBMIT_SECONDS:g} s") from error
        self._log.write_text(done.stdout + done.stderr)
        found = _JOB_ID.search(done.stdout)
        if done.returncode or not found:
            raise DemoFailedError(f"`flink run` failed; see {self._log}: {tail(self._log, _TAIL_LINES)}")
        return found[1]


def run_to_end(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Run a command and return its standard output.

    Raises:
        DemoFailedError: it failed; its last words are in the message.
    """
    done = subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=180, check=False
    )
    if done.returncode:
        raise DemoFailedError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
