"""Certificates and what is read again when files change; no socket."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ferryline.grpc_server.reloading import Reloaded
from ferryline.grpc_server.security.certificates import CertificateFiles, Certificates
from ferryline.grpc_server.security.setup import security_of
from ferryline.grpc_server.security.tls import ssl_context
from ferryline.grpc_server.settings import load_server_settings
from ferryline.registry.errors import UsageError
from tests.grpc_server.authority import DAY, Authority, Pair

AUTHORITY = Authority()


def files(folder: Path, pair: Pair) -> CertificateFiles:
    pair.write(folder)
    return CertificateFiles(folder / "server.pem", folder / "server.key")


def reloaded(found: CertificateFiles) -> Reloaded[Certificates]:
    return Reloaded("certificates", found.all, found.parse)


def test_a_pair_is_read_with_when_it_ends(tmp_path: Path) -> None:
    found = reloaded(files(tmp_path, AUTHORITY.pair("one"))).value
    assert found.subject == "CN=one"
    assert found.client_ca is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda pair, _: Pair(pair.certificate, Authority().pair().key), "is not the key of the certificate"),
        (lambda pair, _: Pair(pair.certificate[:200], pair.key), "no certificates in PEM, or only part"),
        (lambda pair, _: Pair(b"", pair.key), "no certificates in PEM"),
        (lambda pair, _: Pair(pair.certificate, pair.key[:100]), "no private key in PEM, or only part"),
        (lambda pair, _: Pair(pair.certificate, b""), "no private key in PEM"),
        (lambda _, ca: ca.pair(lasts=-DAY), "ended on"),
        (lambda _, ca: ca.pair(passphrase=b"secret"), "is encrypted"),
    ],
)
def test_what_is_not_in_order_is_refused_and_the_old_goes_on(
    tmp_path: Path, damage: Callable[[Pair, Authority], Pair], words: str
) -> None:
    good, better = AUTHORITY.pair("one"), AUTHORITY.pair("two")
    found = files(tmp_path, good)
    watched = reloaded(found)
    damage(good, AUTHORITY).write(tmp_path)
    with pytest.raises(UsageError, match=words):
        reloaded(found)
    with capture_logs() as logs:
        watched.check()
        watched.check()
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert words in logs[0]["reason"]
    assert (watched.value.subject, watched.changes) == ("CN=one", 0)
    assert watched.refused is not None
    better.write(tmp_path)
    watched.check()
    assert (watched.value.subject, watched.changes, watched.refused) == ("CN=two", 1, None)


def test_files_that_vanish_change_nothing(tmp_path: Path) -> None:
    found = files(tmp_path, AUTHORITY.pair("one"))
    watched = reloaded(found)
    found.key.unlink()
    watched.check()
    assert "cannot be read" in str(watched.refused)
    AUTHORITY.pair("two").write(tmp_path)
    watched.check()
    assert watched.value.subject == "CN=two"


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    found = files(tmp_path, AUTHORITY.pair())
    found.certificate.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(UsageError, match="larger than a mebibyte"):
        reloaded(found)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    """A handshake in memory; gives the server's certificate as the client sees it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(6):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return dict(here.getpeercert() or {})


def test_a_listening_context_meets_each_connection_with_what_is_in_force(tmp_path: Path) -> None:
    found = files(tmp_path, AUTHORITY.pair("one"))
    watched = reloaded(found)
    server = ssl_context(lambda: watched.value, "h2")
    client = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    seen = [handshake(server, client)["subject"]]
    AUTHORITY.pair("two").write(tmp_path)
    watched.check()
    seen.append(handshake(server, client)["subject"])
    assert seen == [((("commonName", name),),) for name in ("one", "two")]


def test_an_authority_that_is_taken_out_lets_nobody_in_any_more(tmp_path: Path) -> None:
    old, new = Authority("old"), Authority("new")
    authorities = tmp_path / "clients.pem"
    authorities.write_bytes(old.certificate)
    AUTHORITY.pair().write(tmp_path)
    found = CertificateFiles(tmp_path / "server.pem", tmp_path / "server.key", authorities)
    watched = reloaded(found)
    server = ssl_context(lambda: watched.value, "h2")

    def client(authority: Authority) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
        pair = tmp_path / "client.pem"
        mine = authority.pair("client")
        pair.write_bytes(mine.key + mine.certificate)
        context.load_cert_chain(pair)
        return context

    handshake(server, client(old))
    authorities.write_bytes(new.certificate)
    watched.check()
    handshake(server, client(new))
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(server, client(old))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(server, ssl.create_default_context(cadata=AUTHORITY.certificate.decode()))


def test_half_a_setup_is_a_mistake(tmp_path: Path) -> None:
    for name, missing in (
        ("server_tls_certificate", "--tls-key"),
        ("server_tls_client_ca", "--tls-certificate"),
    ):
        with pytest.raises(UsageError, match=f"TLS needs {missing}"):
            security_of(load_server_settings(**{name: tmp_path / "x"}))
    assert security_of(load_server_settings()).reloaded == []


def test_a_certificate_that_ends_soon_is_in_order(tmp_path: Path) -> None:
    assert reloaded(files(tmp_path, AUTHORITY.pair(lasts=timedelta(minutes=1)))).value.subject == "CN=server"
