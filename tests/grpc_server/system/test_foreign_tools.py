"""Tools that we did not write, against the real server: a probe and a load generator, if installed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ferryline.grpc_server.security.rights import Right
from ferryline.grpc_server.security.tokens import add_to_file, make_token
from tests.grpc_server import model_files
from tests.grpc_server.authority import Authority
from tests.grpc_server.server_process import ServerProcess, Site
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE, wait_for

PROTO = Path("protos/grpc_service.proto").resolve()
HEALTHY, UNREACHABLE, FAILED, UNHEALTHY = 0, 2, 3, 4
"""What grpc-health-probe exits with."""


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test, before it starts a server, where a tool is not installed."""
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not on the PATH")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


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
    command = ["grpc-health-probe", "-addr", address, "-connect-timeout", "60s", "-rpc-timeout", "60s"]
    return run(*command, *flags).returncode


@needs("grpc-health-probe")
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


@needs("grpc-health-probe")
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
        wait_for(lambda: server.metric("ferry_model_ready") == 1, "readiness")
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


@needs("grpc-health-probe")
def test_a_probe_of_a_server_that_drains(site: Site) -> None:
    site.publish(model_files.slow(turns=300, size=700), "slow")
    with site.server("slow") as server:
        server.wait_until_healthy()
        call = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        row = np.array([[1, 2, 3, 4]], np.float32)
        under_way = [
            call.future(raw_request("slow", x=row).SerializeToString(), timeout=DEADLINE) for _ in range(8)
        ]
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"}'
        wait_for(lambda: server.metrics().get(waiting, 0) > 0, "requests to wait")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: bool(server.events("draining")), "the drain")
        assert probe(server.address) == UNHEALTHY
        for each in under_way:
            each.cancel()


# --- ghz -----------------------------------------------------------------------------------------


@needs("ghz")
def test_ghz(server: ServerProcess, tmp_path: Path) -> None:
    data = tmp_path / "request.bin"
    rows = np.zeros((1, 64), np.float32)
    data.write_bytes(raw_request("digits", X=rows).SerializeToString())
    ended = run(
        *("ghz", "--insecure", "--proto", str(PROTO), "--binary-file", str(data)),
        *("--call", "inference.GRPCInferenceService.ModelInfer", "-n", "500", "-c", "8"),
        *("--connections", "2", "-O", "json", server.address),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert (report["count"], report["statusCodeDistribution"]) == (500, {"OK": 500})
