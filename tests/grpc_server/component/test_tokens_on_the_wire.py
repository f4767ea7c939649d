"""A server that asks for tokens: rights, tokens that come and go, and what the log says of callers."""

from __future__ import annotations

import asyncio
import http.client
import queue
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ferryline.grpc_server.endpoint import SERVICE
from ferryline.grpc_server.security import setup
from ferryline.grpc_server.security.guard import Guard
from ferryline.grpc_server.security.rights import Right
from ferryline.grpc_server.security.tokens import add_to_file, make_token
from ferryline.protos import grpc_service_pb2 as pb
from ferryline.registry.documents import utc_now
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer, code_of
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.waiting import DEADLINE, wait_for


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("FERRY_SERVER_RELOAD_SECONDS", "0.1")
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    return made


@dataclass
class Clock:
    """The time by which tokens end."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return utc_now() + self.ahead


@dataclass(frozen=True, slots=True)
class Doors:
    """A server that asks for tokens, and the tokens."""

    server: RunningServer
    file: Path
    tokens: Mapping[str, str]
    clock: Clock

    def header(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"} if who in self.tokens else {}

    def over_grpc(self, rpc: str, who: str, data: bytes = b"", service: str = SERVICE) -> grpc.StatusCode:
        call = self.server.channel.unary_unary(f"/{service}/{rpc}")
        metadata = [(name.lower(), value) for name, value in self.header(who).items()]
        return code_of(lambda: call(data, timeout=DEADLINE, metadata=metadata))

    def over_http(self, method: str, path: str, who: str, body: bytes = b"") -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection(self.server.http_address, timeout=DEADLINE)
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
def doors(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    clock = Clock()
    monkeypatch.setattr(setup, "Guard", partial(Guard, now=clock.now))
    file = site.folder / "tokens.toml"
    tokens = {
        "web": add(file, "web", Right.INFER),
        "ops": add(file, "ops", Right.ADMIN),
        "stranger": make_token("stranger", [Right.INFER, Right.ADMIN])[0],
    }
    flags = ["--tokens", str(file), "--model-control", "explicit", "--access-log", "1"]
    flags += ["--max-message-mib", "4"]
    with site.server(flags=flags) as server:
        server.wait_until_healthy()
        yield Doors(server, file, tokens, clock)


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
        return code_of(
            lambda: list(stub.ServerReflectionInfo(iter([wanted]), timeout=DEADLINE, metadata=metadata))
        )

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
        wait_for(lambda: server.metric("ferry_model_ready") == 1, "readiness")
        health = health_pb2_grpc.HealthStub(server.channel)
        request = health_pb2.HealthCheckRequest()
        assert code_of(lambda: health.Check(request, timeout=DEADLINE)) is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {token}"),)
        assert (
            health.Check(request, timeout=DEADLINE, metadata=metadata).status
            == health_pb2.HealthCheckResponse.SERVING
        )
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        wanted = reflection_pb2.ServerReflectionRequest(list_services="")
        reflect = stub.ServerReflectionInfo(iter([wanted]), timeout=DEADLINE, metadata=metadata)
        assert code_of(lambda: list(reflect)) is grpc.StatusCode.UNIMPLEMENTED


def test_tokens_come_and_go_while_the_server_runs(doors: Doors) -> None:
    batch = add(doors.file, "batch", Right.INFER)
    everyone = replace(doors, tokens={**doors.tokens, "batch": batch})
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
    brief, table = make_token("brief", [Right.INFER], utc_now() + timedelta(hours=1))
    add_to_file(doors.file, "brief", table)
    kept_and_brief = doors.file.read_text()
    batch = add(doors.file, "batch", Right.INFER)
    everyone = replace(doors, tokens={**doors.tokens, "brief": brief, "batch": batch})
    wait_for(lambda: everyone.over_grpc("ServerMetadata", "batch") is grpc.StatusCode.OK, "the new tokens")
    with ExitStack() as stack:
        streams = {who: stack.enter_context(_Talk(everyone, who)) for who in ("web", "brief", "batch")}
        assert [talk.ask() for talk in streams.values()] == [5, 5, 5]
        doors.file.write_text(kept_and_brief)  # one is taken back
        assert streams["batch"].end() is grpc.StatusCode.UNAUTHENTICATED
        assert [streams[who].ask() for who in ("web", "brief")] == [5, 5]
        doors.clock.ahead = timedelta(hours=2)  # and one ends by itself
        assert streams["brief"].end() is grpc.StatusCode.UNAUTHENTICATED
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
        self._call = call(iter(self._requests.get, b""), timeout=DEADLINE, metadata=metadata)

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


def _ended_streams(server: RunningServer) -> list[str]:
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
    big = b"x" * (5 * 2**20)
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
        code: grpc.StatusCode = await asyncio.wait_for(call.code(), DEADLINE)
        return code


def test_a_stream_is_refused_before_its_first_message(doors: Doors) -> None:
    assert asyncio.run(_stream_without_a_token(doors.server.address)) is grpc.StatusCode.UNAUTHENTICATED
