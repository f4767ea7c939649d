"""Ctrl-C in the middle of a run: nothing that its tests started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.shared_stack import RUN_VARIABLE
from tests.support.waiting import DEADLINE, wait_for

ROOT = Path(__file__).parents[3]
INI = """
[pytest]
addopts = --import-mode=importlib
asyncio_default_fixture_loop_scope = function
"""
BLOCKS = """
import os, subprocess, sys
from pathlib import Path

def test_blocks(request):
    # a child that Ctrl-C does not reach, as those of a stack
    command = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    child = subprocess.Popen(command, start_new_session=True)
    told = Path(request.config.rootpath, request.path.stem)
    told.with_suffix(".part").write_text(f"{os.environ['%s']} {child.pid}")
    told.with_suffix(".part").rename(told.with_suffix(".told"))
    child.wait()
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_leaves_no_process(tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "tests" / "sample" / "component"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text(INI)
    for number in range(max(workers, 1)):
        (folder / f"test_{number}.py").write_text(BLOCKS % RUN_VARIABLE)
    arguments = ["-c", str(tmp_path / "pytest.ini"), f"--rootdir={tmp_path}", "-p", "no:cacheprovider"]
    arguments += ["-p", "tests.conftest", "-n", str(workers), "--dist", "loadfile", str(folder)]
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(
            lambda: len(list(tmp_path.glob("*.told"))) == max(workers, 1) or run.poll() is not None,
            "a test in each worker",
        )
        os.killpg(run.pid, signal.SIGINT)
        output, _ = run.communicate(timeout=DEADLINE)
    finally:
        run.kill()
        run.wait()
    told = [file.read_text().split() for file in tmp_path.glob("*.told")]
    assert len(told) == max(workers, 1), output
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    (name,) = {each[0] for each in told}
    assert carrying(name) == [], output
    assert not any(is_running(int(child)) for _, child in told), output


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def carrying(run: str) -> list[str]:
    """The command lines of all processes that a run started, itself included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_VARIABLE) == run and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found
