"""Triton's load generator against the real server, if it is installed and this machine's libraries do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grpc_server import model_files
from tests.grpc_server.server_process import ServerProcess, Site

FETCHED = Path(__file__).parents[3] / ".tools" / "perf_analyzer"
"""Where `make test-all` lays it, as it comes as a Python package, and a library that it asks for."""
ENVIRON = {
    "PATH": os.pathsep.join([str(FETCHED / "bin"), os.environ.get("PATH", os.defpath)]),
    "LD_LIBRARY_PATH": str(FETCHED / "nvidia" / "cuda_runtime" / "lib"),
}


@pytest.fixture(scope="module")
def perf_analyzer() -> str:
    """The command, or a skip that says what is missing."""
    found = shutil.which("perf_analyzer", path=ENVIRON["PATH"])
    if found is None:
        pytest.skip("perf_analyzer is not on the PATH")
    said = run(found, "--help").stderr
    if "not found (required by" in said or "error while loading shared libraries" in said:
        pytest.skip(f"perf_analyzer does not start with this machine's libraries: {said.strip()}")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **ENVIRON}
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environ)


@pytest.fixture(scope="module")
def server(perf_analyzer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.digits_classifier(), "digits")
    with site.server("digits") as running:
        running.wait_until_healthy()
        yield running


@pytest.mark.parametrize(
    ("protocol", "more"),
    [("grpc", ()), ("grpc", ("--streaming",)), ("http", ())],
    ids=["grpc", "stream", "http"],
)
def test_perf_analyzer(
    perf_analyzer: str, server: ServerProcess, protocol: str, more: tuple[str, ...]
) -> None:
    address = server.address if protocol == "grpc" else server.http_address
    ended = run(
        *(perf_analyzer, "-m", "digits", "-u", address, "-i", protocol, *more),
        *("--concurrency-range", "4", "--measurement-mode", "count_windows"),
        *("--measurement-request-count", "200", "--max-trials", "3", "-s", "999"),
    )
    report = ended.stdout
    assert ended.returncode == 0, report + ended.stderr
    assert "Throughput:" in report
    # read from ModelStatistics before and after
    assert "Inference count:" in report
    assert "Failed to" not in report
