"""The unit tests on each Python that is here, with the lowest and the newest libraries of the bounds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.grpc_server.server_process import Site
from tests.onnx_models import linear_classifier
from tests.packaging.wheels import ROOT, Environment, run

PYTHONS = ("3.11", "3.12", "3.13")
# the extras whose libraries Flink's pins hold back, so without `flink` and `stack`; their unit tests go along
# with the libraries that they import, but for Flink itself
EXTRAS = "trainer,grpc,otel,client"
OURS_TOO = ("fastavro", "httpx", "jgo", "pandas", "psutil", "pyarrow", "river", "ruamel.yaml")
TOOLS = (
    "grpcio-tools",
    "h2",
    "hypothesis",
    "pytest",
    *(f"pytest-{each}" for each in ("asyncio", "socket", "timeout", "xdist")),
)
# newer than in the lock file, which has the one that goes with Flink's grpcio
TRITON = "tritonclient[grpc,http]"


def python_of(version: str) -> str:
    """An interpreter of a version: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    named = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, named):
        tried = run(str(candidate), "-c", "import sys; print(sys.version)", status=None)
        if tried.stdout.startswith(f"{version}."):
            return str(candidate)
    pytest.skip(f"no Python {version} is here")


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@pytest.mark.parametrize("version", PYTHONS)
def test_the_unit_tests_pass(tmp_path: Path, version: str, resolution: str) -> None:
    made = Environment.made(tmp_path / "env", python=python_of(version))
    # a build from source is no library that a user of this Python would get
    options = ["--resolution", resolution, "--only-binary", ":all:", "--no-binary", "ferryline"]
    made.install(f"{ROOT}[{EXTRAS}]", options=options)
    made.install(*OURS_TOO, *TOOLS, TRITON, options=["--no-binary", "jgo"])
    done = run(
        str(made.python), "-m", "pytest", "-q", "-p", "no:cacheprovider",
        # other libraries than the lock file's may deprecate what is used here
        "-W", "default", *sorted(str(each) for each in ROOT.glob("tests/*/unit")),
        folder=ROOT, environ=dict(os.environ), status=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


class WheelSite(Site):
    """A registry that a server of the wheel follows."""

    environment: Environment

    def command(self, models: Sequence[str], flags: Sequence[str]) -> list[str]:
        """The command line of that server."""
        _, *rest = super().command(models, flags)
        return [str(self.environment.folder / "bin" / "ferry-server"), *rest]


ASK = """
import sys
import numpy as np
from ferryline.grpc_server.client import Client
with Client(sys.argv[1]) as client:
    print(client.infer("m", np.zeros((1, 4), np.float32))["label"].tolist())
"""


@pytest.mark.parametrize("version", PYTHONS)
def test_a_server_and_a_client_of_the_wheel_answer(wheel: Path, tmp_path: Path, version: str) -> None:
    site = WheelSite(tmp_path)
    site.environment = made = Environment.made(tmp_path / "env", python=python_of(version))
    made.install(f"{wheel}[grpc]")
    site.publish(linear_classifier(winner=2))
    with site.server() as server:
        server.wait_until_healthy()
        asked = run(str(made.python), "-W", "error", "-c", ASK, server.address, folder=tmp_path)
    assert (asked.stdout, asked.stderr) == ("[2]\n", "")
