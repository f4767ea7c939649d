"""Tools that we did not write, against the real server: probes and load generators, if installed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from grpc_server.security.rights import Right
from grpc_server.security.tokens import add_to_file, make_token
from tests.grpc_server import model_files
from tests.grpc_server.authority import Authority
from tests.grpc_server.server_process import START_SECONDS, ServerProcess, Site
from tests.grpc_server.shop import raw_request, wait_for

pytestmark = pytest.mark.integration

PROTO = Path("protos/grpc_service.proto").resolve()
FETCHED = Path(__file__).parents[3] / ".tools" / "perf_analyzer"
"""Where `make integration` lays the one tool that comes as a Python package, and a library it asks for."""
ENVIRON = {
    "PATH": os.pathsep.join([str(FETCHED / "bin"), os.environ.get("PATH", os.defpath)]),
    "LD_LIBRARY_PATH": str(FETCHED / "nvidia" / "cuda_runtime" / "lib"),
}
HEALTHY, UNREACHABLE, FAILED, UNHEALTHY = 0, 2, 3, 4
"""What grpc-health-probe exits with."""


@functools.cache
def tool(name: str) -> str:
    """The command, or a skip that says what to install."""
    found = shutil.which(name, path=ENVIRON["PATH"])
    if found is None:
        pytest.skip(f"{name} is not on the PATH")
    started = run(found, "--help")
    if "not found (required by" in started.stderr or "error while loading shared libraries" in started.stderr:
        pytest.skip(f"{name} does not start with this machine's libraries: {started.stderr.strip()}")
    return found


def run(*command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **ENVIRON}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environ)


def said(*command: str, timeout: float = 60) -> str:
    ended = run(*command, timeout=timeout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    made.publish(model_files.digits_classifier(), "digits")
    return made


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[ServerProcess]:
    with site.server("m", "digits", "later", flags=["--optional", "later"]) as running:
        running.wait_until_healthy()
        yield running


# --- grpc-health-probe ---------------------------------------------------------------------------


def probe(address: str, *flags: str) -> int:
    command = [tool("grpc-health-probe"), "-addr", address, "-connect-timeout", "5s", "-rpc-timeout", "5s"]
    return run(*command, *flags).returncode


def test_a_probe_of_the_server_and_of_each_model_and_channel(server: ServerProcess) -> None:
    found = {
        name: probe(server.address, "-service", name)
        for name in ("", "m", "digits", "digits:production", "later", "nothing")
    }
    assert found == {
        "": HEALTHY,
        "m": HEALTHY,
        "digits": HEALTHY,
        "digits:production": HEALTHY,
        "later": UNHEALTHY,
        "nothing": FAILED,
    }


def test_a_probe_over_tls_with_a_certificate_and_a_token(site: Site) -> None:
    authority, callers = Authority(), Authority("callers")
    (site.folder / "callers.pem").write_bytes(callers.certificate)
    (site.folder / "root.pem").write_bytes(authority.certificate)
    file = site.folder / "tokens.toml"
    token, table = make_token("probe", [Right.INFER])
    add_to_file(file, "probe", table)
    flags = authority.pair().write(site.folder)
    flags += ["--tls-client-ca", str(site.folder / "callers.pem"), "--tokens", str(file), "--guarded-health"]
    pair = callers.pair("probe")
    (site.folder / "probe.pem").write_bytes(pair.certificate)
    (site.folder / "probe.key").write_bytes(pair.key)
    with site.server(flags=flags) as server:
        wait_for(lambda: server.metric("ferry_model_ready") == 1, "readiness", START_SECONDS)
        trusting = ("-tls", "-tls-ca-cert", str(site.folder / "root.pem"))
        named = (
            "-tls-client-cert",
            str(site.folder / "probe.pem"),
            "-tls-client-key",
            str(site.folder / "probe.key"),
        )
        allowed = ("-rpc-header", f"authorization: Bearer {token}")
        assert probe(server.address, *trusting, *named, *allowed) == HEALTHY
        assert probe(server.address, *trusting, *named, *allowed, "-service", "m") == HEALTHY
        assert probe(server.address, *trusting, *named) == FAILED, "without a token"
        assert probe(server.address, *trusting, *allowed) in {UNREACHABLE, FAILED}, "without a certificate"
        assert probe(server.address, *allowed) in {UNREACHABLE, FAILED}, "without TLS"


def test_a_probe_of_a_server_that_drains(site: Site) -> None:
    site.publish(model_files.slow(turns=300, size=700), "slow")
    with site.server("slow") as server:
        server.wait_until_healthy()
        call = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        row = np.array([[1, 2, 3, 4]], np.float32)
        under_way = [
            call.future(raw_request("slow", x=row).SerializeToString(), timeout=60) for _ in range(8)
        ]
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"}'
        wait_for(lambda: server.metrics().get(waiting, 0) > 0, "requests to wait")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: bool(server.events("draining")), "the drain")
        assert probe(server.address) == UNHEALTHY
        for each in under_way:
            each.cancel()


# --- load generators -----------------------------------------------------------------------------


def test_ghz(server: ServerProcess, tmp_path: Path) -> None:
    data = tmp_path / "request.bin"
    rows = np.zeros((1, 64), np.float32)
    data.write_bytes(raw_request("digits", X=rows).SerializeToString())
    report = json.loads(
        said(
            *(tool("ghz"), "--insecure", "--proto", str(PROTO), "--binary-file", str(data)),
            *("--call", "inference.GRPCInferenceService.ModelInfer", "-n", "500", "-c", "8"),
            *("--connections", "2", "-O", "json", server.address),
        )
    )
    assert (report["count"], report["statusCodeDistribution"]) == (500, {"OK": 500})


@pytest.mark.parametrize(
    ("protocol", "more"),
    [("grpc", ()), ("grpc", ("--streaming",)), ("http", ())],
    ids=["grpc", "stream", "http"],
)
def test_perf_analyzer(server: ServerProcess, protocol: str, more: tuple[str, ...]) -> None:
    address = server.address if protocol == "grpc" else server.http_address
    report = said(
        *(tool("perf_analyzer"), "-m", "digits", "-u", address, "-i", protocol, *more),
        *("--concurrency-range", "4", "--measurement-mode", "count_windows"),
        *("--measurement-request-count", "200", "--max-trials", "3", "-s", "999"),
        timeout=240,
    )
    assert "Throughput:" in report
    # read from ModelStatistics before and after
    assert "Inference count:" in report
    assert "Failed to" not in report
