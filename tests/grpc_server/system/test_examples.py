"""The examples stay true: each runs against a real server, and says what its page says that it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ferryline.deploy.stack.errors import MissingToolError
from ferryline.deploy.stack.tools import find_go
from tests.grpc_server.server_process import ServerProcess, Site
from tests.support.waiting import DEADLINE

EXAMPLES = Path("examples").resolve()
PROTO = Path("protos/grpc_service.proto").resolve()

# tritonclient's generated code wants a newer grpcio than this environment may have (see conftest.py)
WITH_TRITON = (
    "import runpy, sys, grpc; grpc.__version__ = '1.67.1'; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], None, '__main__')"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    site = Site(tmp_path_factory.mktemp("site"))
    file = site.folder / "digits.onnx"
    subprocess.run([sys.executable, str(EXAMPLES / "make_digits.py"), str(file)], check=True)
    site.publish(file.read_bytes(), "digits")
    with site.server("digits") as running:
        running.wait_until_healthy()
        yield running


def said(*command: str, cwd: Path = EXAMPLES, **environ: str) -> str:
    path = os.pathsep.join((str(Path.cwd()), str(EXAMPLES)))
    ended = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_our_client(server: ServerProcess) -> None:
    assert said(sys.executable, "our_client.py", server.address).splitlines() == [
        "digit 3 of version 1 generation 1",
        "probabilities (1, 10)",
        (
            "not sent: input 'input' takes [-1, 64], and the array is [64]; "
            "a single row goes as array[np.newaxis]"
        ),
        "rows 25600",
    ]


def test_our_client_for_asyncio(server: ServerProcess) -> None:
    assert said(sys.executable, "our_client_asyncio.py", server.address) == "digits {3}\nversions {'1'}\n"


def test_tritonclient_over_grpc(server: ServerProcess) -> None:
    found = said(sys.executable, "-c", WITH_TRITON, "triton_grpc.py", server.address)
    assert found == "ready True\ndigit 3\nversion 1 generation 1\n"


def test_tritonclient_over_http(server: ServerProcess) -> None:
    found = said(sys.executable, "triton_http.py", server.http_address)
    assert found == "ready True\ndigit 3\nversion 1 generation 1\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on the PATH")
def test_curl(server: ServerProcess) -> None:
    metadata, answer = map(orjson.loads, said("./curl.sh", server.http_address).splitlines())
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]
    assert answer["outputs"] == [{"name": "label", "datatype": "INT64", "shape": [1], "data": [3]}]


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not on the PATH")
def test_grpcurl(server: ServerProcess) -> None:
    found = said("./grpcurl.sh", server.address)
    assert '"SERVING"' in found
    assert '"AwAAAAAAAAA="' in found  # 3, as eight bytes


@pytest.fixture
def go() -> Path:
    try:
        return find_go(os.environ)
    except MissingToolError as error:
        pytest.skip(str(error))


def test_a_go_client_generated_from_our_proto(go: Path, server: ServerProcess, tmp_path: Path) -> None:
    folder = tmp_path / "examples" / "go"
    shutil.copytree(EXAMPLES / "go", folder, ignore=shutil.ignore_patterns("inference", ".bin"))
    (tmp_path / "protos").mkdir()
    shutil.copy(PROTO, tmp_path / "protos")
    path = os.pathsep.join((str(go.parent), os.environ["PATH"]))
    protoc = f"{sys.executable} -m grpc_tools.protoc"
    said("./generate.sh", cwd=folder, PATH=path, PROTOC=protoc)
    assert (
        said("go", "run", ".", server.address, cwd=folder, PATH=path) == "digit 3\nversion 1 generation 1\n"
    )
