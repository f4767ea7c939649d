"""Clusters that lack the Python packages get them with the job, as docs/flink-operations.md says."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ferryline.deploy.stack.local import LocalStack
from tests.flink_scoring.harness import ScoringJob, digit, make_job
from tests.packaging.wheels import build_wheel, uv

UNUSED = ("lib", "opt", "examples", "plugins")  # Flink's own jars, which the cluster has


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The environment as the document says."""
    _run(uv(), "venv", "-q", "--relocatable", "--python", sys.executable, "env", folder=tmp_path)
    wheel = build_wheel(tmp_path / "dist")
    _run(uv(), "pip", "install", "-q", "--python", "env", f"{wheel}[flink]", folder=tmp_path)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in UNUSED:
        packages = tmp_path / "env" / "lib" / version / "site-packages"
        shutil.rmtree(packages / "pyflink" / name, ignore_errors=True)
    _run("tar", "-czf", "env.tgz", "env", folder=tmp_path)
    return tmp_path / "env.tgz"


@pytest.fixture
def job(stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    made = make_job(stack, pipeline_text(f"packed-{uuid.uuid4().hex[:8]}"), tmp_path)
    yield made
    made.end()


def test_workers_run_in_the_environment_that_came_with_the_job(
    job: ScoringJob, archive: Path, constant_model: Callable[..., bytes]
) -> None:
    job.create_source()
    job.promote(constant_model(1))
    result = job.run(flink=("-pyarch", str(archive), "-pyexec", "env.tgz/env/bin/python"))
    job.take_id(result)
    job.send({f"record-{number}".encode(): digit(number) for number in range(20)})
    output = job.read_all(20)
    assert len(output.scored) == 20
    workers = [line for line in _command_lines() if "pyflink_boot" in line or "pyflink.fn_execution" in line]
    assert any("env.tgz/env/bin/python" in line for line in workers), workers


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _command_lines() -> list[str]:
    found = (process.info["cmdline"] for process in psutil.process_iter(["cmdline"]))
    return [" ".join(line) for line in found if line]
