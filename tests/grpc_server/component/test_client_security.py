"""Our client and a server that speaks TLS and asks for tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ferryline.grpc_server.client import NO_RETRY, AccessError, AsyncClient, Client, Tls, UnavailableError
from ferryline.grpc_server.security.rights import Right
from ferryline.grpc_server.security.tokens import add_to_file, make_token
from tests.grpc_server import model_files
from tests.grpc_server.authority import Authority
from tests.grpc_server.server_in_process import Site
from tests.support.waiting import wait_for

ROW = [[1, 2, 3, 4]]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server that takes only callers with its authority's certificates and a token."""

    address: str
    port: str
    tls: Tls
    without_certificate: Tls
    token: str
    admin: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    authority, roots = Authority(), site.folder / "roots.pem"
    roots.write_bytes(authority.certificate)
    authority.pair("caller").write(site.folder, "caller")
    tokens = site.folder / "tokens.toml"
    made = {right: make_token(right.value, [right]) for right in Right}
    for right, (_, table) in made.items():
        add_to_file(tokens, right.value, table)
    flags = [*authority.pair().write(site.folder), "--tls-client-ca", str(roots), "--tokens", str(tokens)]
    with site.server(flags=flags) as server:
        wait_for(lambda: server.metric("ferry_model_ready") == 1, "readiness")
        yield Guarded(
            address=server.address,
            port=server.address.rpartition(":")[2],
            tls=Tls(roots, site.folder / "caller.pem", site.folder / "caller.key"),
            without_certificate=Tls(roots),
            token=made[Right.INFER][0],
            admin=made[Right.ADMIN][0],
        )


def test_a_certificate_and_a_token_open_the_way(guarded: Guarded) -> None:
    with Client(guarded.address, tls=guarded.tls, token=guarded.token) as client:
        client.wait_until_ready("m")
        assert client.infer("m", ROW)["y"].tolist() == [[6, 7, 8, 9]]
        with client.stream("m") as stream:
            assert [answer["y"][0, 0] for answer in stream.answers([ROW, ROW])] == [6, 6]


async def test_for_asyncio_too(guarded: Guarded) -> None:
    async with AsyncClient(guarded.address, tls=guarded.tls, token=lambda: guarded.token) as client:
        assert (await client.infer("m", ROW))["y"][0, 0] == 6
        async with await client.stream("m") as stream:
            assert [answer["y"][0, 0] async for answer in stream.answers([ROW, ROW])] == [6, 6]


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_caller_whom_the_server_does_not_know_is_told(guarded: Guarded, token: str | None) -> None:
    with Client(guarded.address, tls=guarded.tls, token=token) as client:
        with pytest.raises(AccessError) as caught:
            client.infer("m", ROW)
        assert caught.value.code == "UNAUTHENTICATED"


def test_a_token_without_the_right_is_told(guarded: Guarded) -> None:
    with Client(guarded.address, tls=guarded.tls, token=guarded.admin) as client:
        with pytest.raises(AccessError) as caught:
            client.infer("m", ROW)
        assert caught.value.code == "PERMISSION_DENIED"
        with client.stream("m") as stream:
            stream.send(ROW)
            with pytest.raises(AccessError):
                stream.receive()


def test_without_a_certificate_there_is_no_connection(guarded: Guarded) -> None:
    # a pool of its own, or the connections of the tests before would be used
    options = [("grpc.use_local_subchannel_pool", 1)]
    for tls in (None, guarded.without_certificate):
        with (
            Client(guarded.address, tls=tls, token=guarded.token, retry=NO_RETRY, options=options) as client,
            pytest.raises(UnavailableError),
        ):
            client.infer("m", ROW)


def test_a_server_may_be_called_by_another_name_than_its_address(guarded: Guarded) -> None:
    tls, options = guarded.tls, [("grpc.use_local_subchannel_pool", 1)]
    for name, known in (("localhost", True), ("elsewhere", False)):
        named = Tls(tls.roots, tls.certificate, tls.key, server_name=name)
        with Client(
            f"127.0.0.1:{guarded.port}", tls=named, token=guarded.token, retry=NO_RETRY, options=options
        ) as client:
            assert client.live() is known
