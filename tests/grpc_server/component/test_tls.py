"""A server that speaks TLS: who is let in, and certificates that are exchanged."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from ferryline.grpc_server.endpoint import SERVICE
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.authority import DAY, Authority, Pair
from tests.grpc_server.running_server import ROW, RunningServer, code_of
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.sizes import sized
from tests.support.waiting import DEADLINE, wait_for

INFER = f"/{SERVICE}/ModelInfer"
Channel = grpc.Channel


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("FERRY_SERVER_RELOAD_SECONDS", "0.1")
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    return made


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def secure(address: str, root: bytes, client: Pair | None = None) -> Channel:
    key, certificate = (client.key, client.certificate) if client else (None, None)
    # a pool of its own for each channel, or all would share one connection
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, certificate), options)


def infer(channel: Channel) -> float:
    call = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
    reply = call(raw_request("m", x=ROW).SerializeToString(), timeout=DEADLINE)
    return float(float_output(reply)[0, 0] - ROW[0, 0])


def wait_until_warm(server: RunningServer) -> None:
    wait_for(lambda: server.metric("ferry_model_ready") == 1, "readiness")


def https(address: str, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(address, timeout=DEADLINE, context=context)


def status_over(address: str, context: ssl.SSLContext, path: str = "/v2/health/ready") -> int:
    connection = https(address, context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_tls_on_grpc_and_http(site: Site, authority: Authority) -> None:
    flags = authority.pair().write(site.folder)
    with site.server(flags=flags) as server:
        wait_until_warm(server)
        with secure(server.address, authority.certificate) as channel:
            assert infer(channel) == 5
        trusting = ssl.create_default_context(cadata=authority.certificate.decode())
        assert status_over(server.http_address, trusting) == 200
        # who trusts another authority, and who speaks no TLS, gets no answer
        with secure(server.address, Authority("other").certificate) as channel:
            assert code_of(lambda: infer(channel)) is grpc.StatusCode.UNAVAILABLE
        assert code_of(lambda: infer(server.channel)) is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(ssl.SSLCertVerificationError):
            status_over(server.http_address, ssl.create_default_context())
        plain = http.client.HTTPConnection(server.http_address, timeout=DEADLINE)
        with pytest.raises((http.client.HTTPException, OSError)):
            _ask(plain)
        plain.close()
        old = ssl.create_default_context(cadata=authority.certificate.decode())
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert status_over(server.http_address, old) == 200
        assert "Traceback" not in server.log()


def _ask(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/v2")
    connection.getresponse()


def test_mutual_tls_takes_only_callers_with_a_certificate_in_time(site: Site, authority: Authority) -> None:
    callers = Authority("callers")
    (site.folder / "callers.pem").write_bytes(callers.certificate)
    flags = [*authority.pair().write(site.folder), "--tls-client-ca", str(site.folder / "callers.pem")]
    with site.server(flags=[*flags, "--access-log", "1"]) as server:
        wait_until_warm(server)
        root = authority.certificate
        with secure(server.address, root, callers.pair("web")) as channel:
            assert infer(channel) == 5
        refused = {
            "none": None,
            "of another authority": Authority("others").pair("web"),
            "expired": callers.pair("web", lasts=-DAY),
        }
        for what, pair in refused.items():
            with secure(server.address, root, pair) as channel:
                assert code_of(lambda c=channel: infer(c)) is grpc.StatusCode.UNAVAILABLE, what  # type: ignore[misc]
            with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
                status_over(server.http_address, client_context(authority, pair, site.folder))
        assert (
            status_over(server.http_address, client_context(authority, callers.pair("batch"), site.folder))
            == 200
        )
        calls = server.events("call")
        assert {call["peer"] for call in calls} == {"web", "batch"}


def client_context(authority: Authority, pair: Pair | None, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    if pair is not None:
        file = folder / "client.pem"
        file.write_bytes(pair.key + pair.certificate)
        context.load_cert_chain(file)
    return context


def test_a_certificate_is_exchanged_under_load_and_no_new_connection_fails(
    site: Site, authority: Authority
) -> None:
    """Both authorities are trusted: each connection is met by the old certificate or the new one."""
    newer = Authority("newer")
    flags = authority.pair("old").write(site.folder)
    with site.server(flags=flags) as server:
        wait_until_warm(server)
        roots = authority.certificate + newer.certificate
        lasting = secure(server.address, roots)
        assert infer(lasting) == 5
        seen: list[str] = []
        writes = iter(_writes(server, site.folder, newer.pair("new")))
        asked = sized(10, 30)

        def ask_and_write() -> bool:
            with secure(server.address, roots) as channel:
                assert infer(channel) == 5
            assert infer(lasting) == 5
            seen.append(name_shown(server.http_address, roots))
            if len(seen) > asked:
                next(writes, None)  # key and certificate come one after the other, with connections between
            return seen.count("new") == asked

        wait_for(ask_and_write, "connections that meet the new certificate")
        assert {"old", "new"} == set(seen)
        assert seen == sorted(seen, reverse=True), "once the new one is shown, the old one is not any more"
        assert (
            "is not the key of the certificate"
            in server.events("the files are not taken, the old ones go on")[0]["reason"]
        )
        # who trusts the new authority only is served, on gRPC too
        with secure(server.address, newer.certificate) as channel:
            assert infer(channel) == 5
        lasting.close()
        assert server.metrics()['ferry_reload_refused{what="certificates"}'] == 0
        shown = x509.load_pem_x509_certificate((site.folder / "server.pem").read_bytes())
        ends = server.metrics()["ferry_certificate_not_after_seconds"]
        assert ends == shown.not_valid_after_utc.timestamp()


def _writes(server: RunningServer, folder: Path, pair: Pair) -> Iterator[None]:
    (folder / "server.key").write_bytes(pair.key)
    yield
    wait_for(
        lambda: bool(server.events("the files are not taken, the old ones go on")),
        "a look at two files that do not belong together",
    )
    (folder / "server.pem").write_bytes(pair.certificate[:100])
    yield
    (folder / "server.pem").write_bytes(pair.certificate)
    yield


def name_shown(address: str, roots: bytes) -> str:
    connection = https(address, ssl.create_default_context(cadata=roots.decode()))
    connection.connect()
    try:
        certificate = connection.sock.getpeercert()
        assert certificate
        return dict(pair for part in certificate["subject"] for pair in part)["commonName"]
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda authority: authority.pair(lasts=-timedelta(hours=1)), "ended on"),
        (lambda authority: Pair(authority.pair().certificate, authority.pair().key), "is not the key of"),
        (lambda _: Pair(b"nothing", b"nothing"), "holds no certificates in PEM"),
    ],
)
def test_the_server_does_not_start_with_certificates_that_would_not_do(
    site: Site, authority: Authority, damage: Callable[[Authority], Pair], words: str
) -> None:
    ended = site.run_to_its_end(flags=damage(authority).write(site.folder))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert words in ended.stderr
