"""The stack of a run: what a killed run leaves behind is taken down, and a run beside another has its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ferryline.deploy.stack.state import load_state
from tests.support.waiting import DEADLINE, wait_for

ROOT = Path(__file__).parents[3]
LEAD_A_RUN = """
import sys
from pathlib import Path
from tests.support.shared_stack import SharedStack, TestRun

run = TestRun(Path(sys.argv[1]))
print(run.home, flush=True)
if sys.argv[2:]:
    SharedStack().up(sys.argv[2:])
print("up", flush=True)
sys.stdin.read()
print(run.end(), flush=True)
"""


@dataclass
class Leader:
    """A process that leads a run until its standard input ends."""

    process: subprocess.Popen[str]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> str:
        told, _ = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0
        return told.strip()


@contextlib.contextmanager
def leading(folder: Path, *parts: str) -> Iterator[Leader]:
    process = subprocess.Popen(
        [sys.executable, "-c", LEAD_A_RUN, str(folder), *parts],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Leader(process)
    finally:
        process.kill()
        process.communicate()


def minio_of(folder: Path) -> psutil.Process:
    return psutil.Process(load_state(folder / "state.json").processes["minio"].pid)


def test_the_stack_of_a_killed_run_is_taken_down_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    with leading(folder, "minio") as killed:
        assert killed.line() == str(folder)
        assert killed.line() == "up"
        minio = minio_of(folder)
        killed.process.kill()
        killed.process.wait()
        assert minio.is_running()
        with leading(folder) as following:
            assert following.line() == str(folder)
            wait_for(lambda: not minio.is_running() or minio.status() == psutil.STATUS_ZOMBIE, "its end")
            assert following.line() == "up"
            assert not (folder / "minio").exists()
            assert following.end() == "[]"


def test_a_run_beside_another_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    with leading(folder) as first:
        assert first.line() == str(folder)
        with leading(folder) as second:
            elsewhere = Path(second.line())
            assert elsewhere != folder
            assert elsewhere.is_dir()
            assert second.line() == "up"
            second.end()
        assert not elsewhere.exists()
        assert first.line() == "up"
        first.end()
