"""The file of tokens, and what a guard makes of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ferryline.grpc_server.admission import recheck
from ferryline.grpc_server.behaviours import OpenStream
from ferryline.grpc_server.endpoint import endpoints
from ferryline.grpc_server.errors import ForbiddenError, UnauthenticatedError
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.security.guard import Guard
from ferryline.grpc_server.security.minting import mint
from ferryline.grpc_server.security.rights import REFLECTION, Right, rights_for
from ferryline.grpc_server.security.tokens import Tokens, add_to_file, digest_of, make_token, parse_tokens
from ferryline.grpc_server.streaming import OrderedStream
from ferryline.registry.errors import ConflictError, UsageError

FILE = Path("tokens.toml")
NOW = datetime(2027, 1, 1, tzinfo=UTC)
GOOD = "0" * 64


def known(*tables: str) -> Tokens:
    return parse_tokens(FILE, "\n".join(tables).encode())


def guard(*tables: str, open_health: bool = True, now: datetime = NOW) -> Guard:
    tokens = known(*tables)
    return Guard(lambda: tokens, open_health=open_health, now=lambda: now)


def test_a_token_is_known_by_its_digest_alone() -> None:
    token, table = make_token("web", [Right.INFER])
    assert token not in table
    found = known(table).find(token)
    assert found is not None
    assert (found.name, found.rights, found.digest) == ("web", {Right.INFER}, digest_of(token))
    assert known(table).find(token + "x") is None
    assert known(table).find("") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no token"),
        ("tokens = 3", "must hold tables"),
        ("[other]", "must hold tables"),
        ("[tokens.a", "is not TOML"),
        ("[tokens.A]", "has a name that is not"),
        ("[tokens.a]", "needs sha256"),
        ("[tokens.a]\nsha256 = 'short'\nrights = ['infer']", "needs sha256"),
        (f"[tokens.a]\nsha256 = '{GOOD}'", "needs rights, a list of infer and admin"),
        (f"[tokens.a]\nsha256 = '{GOOD}'\nrights = []", "needs rights"),
        (f"[tokens.a]\nsha256 = '{GOOD}'\nrights = 'infer'", "needs rights"),
        (f"[tokens.a]\nsha256 = '{GOOD}'\nrights = ['root']", "needs rights"),
        (f"[tokens.a]\nsha256 = '{GOOD}'\nrights = ['infer']\nnot_after = 3", "no date with a time"),
        (
            f"[tokens.a]\nsha256 = '{GOOD}'\nrights = ['infer']\ntoken = 'x'",
            "may say not_after, rights, sha256",
        ),
        (
            f"[tokens.a]\nsha256='{GOOD}'\nrights=['infer']\n[tokens.b]\nsha256='{GOOD}'\nrights=['infer']",
            "under two names",
        ),
    ],
)
def test_a_file_that_is_not_in_order_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"tokens\.toml") as caught:
        known(text)
    assert words in str(caught.value)


def test_tokens_are_added_to_a_file_beside_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    tokens = {}
    for name in ("a.b", "c"):
        tokens[name], table = make_token(name, [Right.ADMIN, Right.INFER], NOW)
        add_to_file(file, name, table)
    found = parse_tokens(file, file.read_bytes())
    assert [(entry.name, entry.not_after) for entry in found.entries] == [("a.b", NOW), ("c", NOW)]
    assert all(found.find(token) for token in tokens.values())
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError, match="has a token 'c'"):
        add_to_file(file, "c", make_token("c", [Right.INFER])[1])
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.toml"]


def test_minting_prints_the_token_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens.toml"
    mint("web", "infer,admin", "90d", file)
    token = capsys.readouterr().out.strip()
    found = parse_tokens(file, file.read_bytes()).find(token)
    assert found is not None
    assert found.rights == {Right.INFER, Right.ADMIN}
    for arguments in (
        ("web", "root", None),
        ("Web", "infer", None),
        ("web", "", None),
        ("x", "infer", "ever"),
    ):
        with pytest.raises(UsageError):
            mint(*arguments, None)


def test_rights_are_apart_from_each_other() -> None:
    infer, infer_table = make_token("web", [Right.INFER])
    admin, admin_table = make_token("ops", [Right.ADMIN])
    asked = guard(infer_table, admin_table)
    assert asked.admit("ModelInfer", f"Bearer {infer}") == "web"
    assert asked.admit("RepositoryModelLoad", f"bearer {admin}") == "ops"
    assert {asked.admit("ModelMetadata", f"Bearer {token}") for token in (infer, admin)} == {"web", "ops"}
    for rpc, token in (("ModelInfer", admin), ("RepositoryModelUnload", infer), (REFLECTION, infer)):
        with pytest.raises(ForbiddenError, match=f"may not call '{rpc}'"):
            asked.admit(rpc, f"Bearer {token}")
    assert asked.refused == {"forbidden": 3}


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {token}", "{token}"]
)
def test_without_a_known_token_nobody_passes(header: str | None) -> None:
    token, table = make_token("web", [Right.INFER])
    asked = guard(table)
    with pytest.raises(UnauthenticatedError) as caught:
        asked.admit("ModelInfer", header and header.format(token=token))
    assert token not in str(caught.value)
    assert asked.admit("ServerReady", header and header.format(token=token)) is None


def test_health_can_be_guarded_too() -> None:
    token, table = make_token("web", [Right.INFER])
    asked = guard(table, open_health=False)
    for rpc in ("ServerLive", "ServerReady", "ModelReady", "Check", "Watch"):
        with pytest.raises(UnauthenticatedError):
            asked.admit(rpc, None)
        assert asked.admit(rpc, f"Bearer {token}") == "web"


def test_a_token_ends_when_it_says_though_it_was_known() -> None:
    token, table = make_token("web", [Right.INFER], NOW + timedelta(hours=1))
    now = NOW
    tokens = known(table)
    asked = Guard(lambda: tokens, now=lambda: now)
    assert asked.admit("ModelInfer", f"Bearer {token}") == "web"
    now += timedelta(hours=1)
    with pytest.raises(UnauthenticatedError, match="its time is over"):
        asked.admit("ModelInfer", f"Bearer {token}")


def test_a_token_that_is_taken_out_is_known_no_more() -> None:
    token, table = make_token("web", [Right.INFER])
    other = make_token("other", [Right.INFER])[1]
    tokens = known(table, other)
    asked = Guard(lambda: tokens)
    asked.admit("ModelInfer", f"Bearer {token}")
    tokens = known(other)
    with pytest.raises(UnauthenticatedError):
        asked.admit("ModelInfer", f"Bearer {token}")


async def test_open_streams_end_once_their_callers_may_call_no_more() -> None:
    minted = {name: make_token(name, [Right.INFER]) for name in ("web", "batch")}
    minted["brief"] = make_token("brief", [Right.INFER], NOW + timedelta(hours=1))
    tables = {name: table for name, (_, table) in minted.items()}
    now, tokens = NOW, known(*tables.values())
    asked = Guard(lambda: tokens, now=lambda: now)
    opened = {name: OpenStream(_silent(), f"Bearer {token}") for name, (token, _) in minted.items()}
    running = {name: asyncio.ensure_future(each.stream.run()) for name, each in opened.items()}
    await asyncio.sleep(0)

    def refused() -> set[str]:
        recheck(asked, opened.values())
        return {name for name, each in opened.items() if isinstance(each.refusal, UnauthenticatedError)}

    assert refused() == set()
    tokens = known(tables["web"], tables["brief"])
    assert refused() == {"batch"}
    now += timedelta(hours=1)
    assert refused() == {"batch", "brief"}
    assert refused() == {"batch", "brief"}
    assert asked.refused == {"unauthenticated": 2}
    await asyncio.gather(running.pop("batch"), running.pop("brief"))
    assert not running["web"].done()
    running["web"].cancel()


def _silent() -> OrderedStream:
    """A stream whose caller keeps it open and sends nothing."""

    async def read() -> object:
        return await asyncio.Event().wait()

    async def write(_data: bytes) -> None:
        raise AssertionError("nothing was asked")

    return OrderedStream(lambda data: data, read, write, None)


def test_every_rpc_but_health_asks_for_a_right() -> None:
    names = {endpoint.name for endpoint in endpoints(Models([]))[1]} | {"ModelStreamInfer", REFLECTION}
    assert {name for name in names if not rights_for(name)} == {"ServerLive", "ServerReady", "ModelReady"}
    admins = {name for name in names if rights_for(name) == {Right.ADMIN}}
    assert {"RepositoryModelLoad", "RepositoryModelUnload", REFLECTION} <= admins
    assert rights_for("AnRpcToCome") == set(Right)
