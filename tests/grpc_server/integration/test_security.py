"""The real server with certificates and tokens."""

from __future__ import annotations

import asyncio
import http.client
import queue
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from grpc_server.endpoint import SERVICE
from grpc_server.security.rights import Right
from grpc_server.security.tokens import add_to_file, make_token
from protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.authority import DAY, Authority, Pair
from tests.grpc_server.server_process import START_SECONDS, ServerProcess, Site
from tests.grpc_server.shop import float_output, raw_request, wait_for

pytestmark = pytest.mark.integration

ROW = np.array([[1, 2, 3, 4]], np.float32)
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


def infer(channel: Channel, metadata: tuple[tuple[str, str], ...] = (), timeout: float = 5) -> float:
    call = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
    reply = call(raw_request("m", x=ROW).SerializeToString(), timeout=timeout, metadata=metadata)
    return float(float_output(reply)[0, 0] - ROW[0, 0])


def code_of(ask: Callable[[], object]) -> grpc.StatusCode:
    try:
        ask()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def wait_until_warm(server: ServerProcess) -> None:
    wait_for(lambda: server.metric("ferry_model_ready") == 1, "readiness", START_SECONDS)


# --- TLS -----------------------------------------------------------------------------------------


def https(address: str, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(address, timeout=5, context=context)


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
        plain = http.client.HTTPConnection(server.http_address, timeout=5)
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
                assert code_of(lambda c=channel: infer(c, timeout=3)) is grpc.StatusCode.UNAVAILABLE, what  # type: ignore[misc]
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
        deadline = time.monotonic() + 30
        while seen.count("new") < 30 and time.monotonic() < deadline:
            with secure(server.address, roots) as channel:
                assert infer(channel) == 5
            assert infer(lasting) == 5
            seen.append(name_shown(server.http_address, roots))
            if len(seen) > 10:
                next(writes, None)  # key and certificate come one after the other, with connections between
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
        assert server.metrics()["ferry_certificate_not_after_seconds"] > time.time()


def _writes(server: ServerProcess, folder: Path, pair: Pair) -> Iterator[None]:
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


# --- tokens --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Doors:
    """A server that asks for tokens, and the tokens."""

    server: ServerProcess
    file: Path
    tokens: Mapping[str, str]

    def header(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"} if who in self.tokens else {}

    def over_grpc(self, rpc: str, who: str, data: bytes = b"", service: str = SERVICE) -> grpc.StatusCode:
        call = self.server.channel.unary_unary(f"/{service}/{rpc}")
        metadata = [(name.lower(), value) for name, value in self.header(who).items()]
        return code_of(lambda: call(data, timeout=5, metadata=metadata))

    def over_http(self, method: str, path: str, who: str, body: bytes = b"") -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection(self.server.http_address, timeout=5)
        try:
            connection.request(method, path, body, self.header(who))
            reply = connection.getresponse()
            found = orjson.loads(reply.read())
            assert reply.status != 401 or reply.headers["WWW-Authenticate"].startswith("Bearer")
            return reply.status, found
        finally:
            connection.close()


def add(file: Path, name: str, *rights: Right) -> str:
    token, table = make_token(name, rights)
    add_to_file(file, name, table)
    return token


@pytest.fixture
def doors(site: Site) -> Iterator[Doors]:
    file = site.folder / "tokens.toml"
    tokens = {
        "web": add(file, "web", Right.INFER),
        "ops": add(file, "ops", Right.ADMIN),
        "stranger": make_token("stranger", [Right.INFER, Right.ADMIN])[0],
    }
    flags = ["--tokens", str(file), "--model-control", "explicit", "--access-log", "1"]
    with site.server(flags=flags) as server:
        server.wait_until_healthy()
        yield Doors(server, file, tokens)


PEOPLE = ("nobody", "stranger", "web", "ops")
NOBODY, STRANGER, WEB, OPS = PEOPLE
MATRIX = {
    "ServerLive": set(PEOPLE),
    "ServerReady": set(PEOPLE),
    "ModelReady": set(PEOPLE),
    "ServerMetadata": {WEB, OPS},
    "ModelMetadata": {WEB, OPS},
    "ModelConfig": {WEB, OPS},
    "ModelStatistics": {WEB, OPS},
    "RepositoryIndex": {WEB, OPS},
    "ModelInfer": {WEB},
    "ModelStreamInfer": {WEB},
    "RepositoryModelLoad": {OPS},
    "RepositoryModelUnload": {OPS},
    "TraceSetting": {OPS},
    "LogSettings": {OPS},
    "SystemSharedMemoryRegister": {OPS},
    "CudaSharedMemoryStatus": {OPS},
}
PATHS = {
    ("GET", "/v2/health/live"): set(PEOPLE),
    ("GET", "/v2/health/ready"): set(PEOPLE),
    ("GET", "/v2/models/m/ready"): set(PEOPLE),
    ("GET", "/v2"): {WEB, OPS},
    ("GET", "/v2/models/m"): {WEB, OPS},
    ("GET", "/v2/models/m/config"): {WEB, OPS},
    ("GET", "/v2/models/stats"): {WEB, OPS},
    ("POST", "/v2/repository/index"): {WEB, OPS},
    ("POST", "/v2/models/m/infer"): {WEB},
    ("POST", "/v2/repository/models/x/load"): {OPS},
    ("POST", "/v2/repository/models/x/unload"): {OPS},
    ("GET", "/v2/logging"): {OPS},
    ("GET", "/v2/systemsharedmemory/status"): {OPS},
}
_REFUSALS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def test_the_rights_of_every_token_over_grpc_and_http(doors: Doors) -> None:
    for rpc, allowed in MATRIX.items():
        codes = {who: doors.over_grpc(rpc, who) for who in PEOPLE}
        assert {who for who, code in codes.items() if code not in _REFUSALS} == allowed, (rpc, codes)
        for who in (NOBODY, STRANGER):
            assert who in allowed or codes[who] is grpc.StatusCode.UNAUTHENTICATED
        for who in (WEB, OPS):
            assert who in allowed or codes[who] is grpc.StatusCode.PERMISSION_DENIED
    for (method, path), allowed in PATHS.items():
        statuses = {who: doors.over_http(method, path, who)[0] for who in PEOPLE}
        assert {who for who, status in statuses.items() if status not in {401, 403}} == allowed, (
            path,
            statuses,
        )
        assert all(statuses[who] == 401 for who in {NOBODY, STRANGER} - allowed)
        assert all(statuses[who] == 403 for who in {WEB, OPS} - allowed)
    found = doors.server.metrics()
    everything = [*MATRIX.values(), *PATHS.values()]
    unknown = sum(len({NOBODY, STRANGER} - allowed) for allowed in everything)
    forbidden = sum(len({WEB, OPS} - allowed) for allowed in everything)
    assert found['ferry_calls_refused_total{reason="unauthenticated"}'] == unknown
    assert found['ferry_calls_refused_total{reason="forbidden"}'] == forbidden
    log = doors.server.log()
    assert not any(token in log for token in doors.tokens.values()), "tokens are written nowhere"


def test_health_and_reflection_with_tokens(doors: Doors) -> None:
    assert doors.over_grpc("Check", NOBODY, service="grpc.health.v1.Health") is grpc.StatusCode.OK
    stub = reflection_pb2_grpc.ServerReflectionStub(doors.server.channel)
    wanted = reflection_pb2.ServerReflectionRequest(list_services="")

    def reflect(who: str) -> grpc.StatusCode:
        metadata = [(name.lower(), value) for name, value in doors.header(who).items()]
        return code_of(lambda: list(stub.ServerReflectionInfo(iter([wanted]), timeout=5, metadata=metadata)))

    assert [reflect(who) for who in PEOPLE] == [
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.OK,
    ]
    # what readiness rests on is told to those who have a token
    assert "models" not in doors.over_http("GET", "/v2/health/ready", NOBODY)[1]
    detail = doors.over_http("GET", "/v2/health/ready", OPS)[1]["models"]
    assert isinstance(detail, dict)
    assert detail["m"]["generation"] == 1


def test_guarded_health_and_no_reflection(site: Site) -> None:
    file = site.folder / "tokens.toml"
    token = add(file, "web", Right.ADMIN)
    flags = ["--tokens", str(file), "--guarded-health", "--no-reflection"]
    with site.server(flags=flags) as server:
        wait_until_warm(server)
        health = health_pb2_grpc.HealthStub(server.channel)
        request = health_pb2.HealthCheckRequest()
        assert code_of(lambda: health.Check(request, timeout=5)) is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {token}"),)
        assert (
            health.Check(request, timeout=5, metadata=metadata).status
            == health_pb2.HealthCheckResponse.SERVING
        )
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        wanted = reflection_pb2.ServerReflectionRequest(list_services="")
        reflect = stub.ServerReflectionInfo(iter([wanted]), timeout=5, metadata=metadata)
        assert code_of(lambda: list(reflect)) is grpc.StatusCode.UNIMPLEMENTED


def test_tokens_come_and_go_while_the_server_runs(doors: Doors) -> None:
    batch = add(doors.file, "batch", Right.INFER)
    everyone = Doors(doors.server, doors.file, {**doors.tokens, "batch": batch})
    wait_for(lambda: everyone.over_grpc("ServerMetadata", "batch") is grpc.StatusCode.OK, "the new token")
    good = doors.file.read_text()
    doors.file.write_text(good[: len(good) // 2])  # half written
    wait_for(lambda: bool(doors.server.events("the files are not taken, the old ones go on")), "the refusal")
    assert everyone.over_grpc("ServerMetadata", "batch") is grpc.StatusCode.OK
    rest = [table for table in good.split("\n\n") if "[tokens.batch]" not in table]
    doors.file.write_text("\n\n".join(rest))
    wait_for(
        lambda: everyone.over_grpc("ServerMetadata", "batch") is grpc.StatusCode.UNAUTHENTICATED, "its end"
    )
    assert everyone.over_grpc("ServerMetadata", "web") is grpc.StatusCode.OK


def test_open_streams_end_with_the_token_that_opened_them(doors: Doors) -> None:
    brief, table = make_token("brief", [Right.INFER], datetime.now(UTC) + timedelta(seconds=4))
    add_to_file(doors.file, "brief", table)
    kept_and_brief = doors.file.read_text()
    batch = add(doors.file, "batch", Right.INFER)
    everyone = Doors(doors.server, doors.file, {**doors.tokens, "brief": brief, "batch": batch})
    wait_for(lambda: everyone.over_grpc("ServerMetadata", "batch") is grpc.StatusCode.OK, "the new tokens")
    with ExitStack() as stack:
        streams = {who: stack.enter_context(_Talk(everyone, who)) for who in ("web", "brief", "batch")}
        assert [talk.ask() for talk in streams.values()] == [5, 5, 5]
        doors.file.write_text(kept_and_brief)  # one is taken back, one ends by itself
        for who in ("batch", "brief"):
            began = time.monotonic()
            assert streams[who].end() is grpc.StatusCode.UNAUTHENTICATED
            assert time.monotonic() - began < 8
        assert streams["web"].ask() == 5
    wait_for(lambda: len(_ended_streams(doors.server)) == 3, "the log")
    # that a caller cancelled may reach gRPC's server as the end of its requests, and then all is well
    first, *others = sorted(_ended_streams(doors.server))
    assert first in {"CANCELLED", "OK"}
    assert others == ["UNAUTHENTICATED", "UNAUTHENTICATED"]


class _Talk:
    """A stream that its caller keeps open."""

    def __init__(self, doors: Doors, who: str) -> None:
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        call = doors.server.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        metadata = [(name.lower(), value) for name, value in doors.header(who).items()]
        self._call = call(iter(self._requests.get, b""), timeout=30, metadata=metadata)

    def ask(self) -> float:
        self._requests.put(raw_request("m", x=ROW).SerializeToString())
        return float(float_output(next(self._call).infer_response)[0, 0] - ROW[0, 0])

    def end(self) -> grpc.StatusCode:
        return code_of(lambda: next(self._call))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._requests.put(b"")


def _ended_streams(server: ServerProcess) -> list[str]:
    return [call["status"] for call in server.events("call") if call["rpc"] == "ModelStreamInfer"]


def test_the_access_log_names_callers_and_models_and_no_payload(doors: Doors) -> None:
    request = raw_request("m", x=np.full((1, 4), 1234.5, np.float32))
    request.id = "order-7"
    assert doors.over_grpc("ModelInfer", WEB, request.SerializeToString()) is grpc.StatusCode.OK
    request.model_name = "nothing"
    assert doors.over_grpc("ModelInfer", WEB, request.SerializeToString()) is grpc.StatusCode.NOT_FOUND
    body = {
        "id": "h1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1234.5] * 4}],
    }
    assert doors.over_http("POST", "/v2/models/m/infer", WEB, orjson.dumps(body))[0] == 200
    assert doors.over_grpc("ModelInfer", NOBODY) is grpc.StatusCode.UNAUTHENTICATED

    wait_for(lambda: len(doors.server.events("call")) >= 4, "the log")
    said = [
        {
            name: call.get(name)
            for name in ("rpc", "transport", "status", "peer", "model", "version", "request_id")
        }
        for call in doors.server.events("call")
    ]
    answered = {"rpc": "ModelInfer", "peer": "web", "model": "m", "version": "1"}
    assert {**answered, "transport": "grpc", "status": "OK", "request_id": "order-7"} in said
    assert {**answered, "transport": "http", "status": "200", "request_id": "h1"} in said
    missing = {"model": "nothing", "status": "NOT_FOUND", "version": None, "request_id": "order-7"}
    assert {**answered, "transport": "grpc", **missing} in said
    assert any(call["status"] == "UNAUTHENTICATED" and "127.0.0.1" in call["peer"] for call in said)
    assert "1234.5" not in doors.server.log()


def test_what_is_too_large_is_refused_before_it_is_asked_for_its_token(doors: Doors) -> None:
    big = b"x" * (65 * 2**20)
    assert doors.over_grpc("ModelInfer", NOBODY, big) in {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
    assert doors.over_grpc("ModelInfer", WEB, big) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert doors.over_http("POST", "/v2/models/m/infer", WEB, big)[0] == 413


async def _stream_without_a_token(address: str) -> grpc.StatusCode:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")()
        # nothing is sent, and the answer comes all the same
        code: grpc.StatusCode = await asyncio.wait_for(call.code(), 5)
        return code


def test_a_stream_is_refused_before_its_first_message(doors: Doors) -> None:
    assert asyncio.run(_stream_without_a_token(doors.server.address)) is grpc.StatusCode.UNAUTHENTICATED
