"""Flink's stock SQL client in a terminal, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ferryline.deploy.stack.local import LocalStack
from tests.support.waiting import DEADLINE

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()][0-9A-B]?|\r")


def sql_command(stack: LocalStack, store: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """`ferry-stack sql` against a running stack, with a registry."""
    environ = {**os.environ, "FERRY_STACK_HOME": str(stack.home.root), **stack.addresses().environ()}
    return [sys.executable, "-m", "ferryline.deploy.stack", "sql", *arguments], {
        **environ,
        "FERRY_STORE": store,
    }


def run_sql(stack: LocalStack, store: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command, environ = sql_command(stack, store, *arguments)
    return subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
        check=False,
    )  # fmt: skip


class SqlSession:
    """The client between `open` and its end."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self._read = ""

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._terminal, text.encode() + b"\n")

    def press_ctrl_c(self) -> None:
        """End the query that runs."""
        os.write(self._terminal, b"\x03")

    def wait_for(self, pattern: str) -> str:
        """What is printed until `pattern` comes, with it; the next call reads on from there."""
        end = time.monotonic() + DEADLINE
        while (found := re.search(pattern, self._read)) is None:
            assert time.monotonic() < end, f"waited in vain for {pattern!r}:\n{self._read[-3000:]}"
            if select.select([self._terminal], [], [], 0.2)[0]:
                self._read += _CONTROL.sub("", os.read(self._terminal, 65536).decode(errors="replace"))
        text, self._read = self._read[: found.end()], self._read[found.end() :]
        return text


def _own_terminal() -> None:
    # else Ctrl-C is a character like any other
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def open_session(command: list[str], environ: Mapping[str, str], folder: Path) -> Iterator[SqlSession]:
    """Open the client in a terminal of its own."""
    master, slave = pty.openpty()
    history = ["-hist", str(folder / "history")]
    process = subprocess.Popen(
        [*command, *history], env={**environ, "TERM": "dumb", "COLUMNS": "300"}, stdin=slave, stdout=slave,
        stderr=slave, start_new_session=True, preexec_fn=_own_terminal,  # noqa: PLW1509 - it takes no lock
    )  # fmt: skip
    os.close(slave)
    try:
        yield SqlSession(process, master)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(DEADLINE)
        os.close(master)
