"""HTTP on sockets: statuses, limits, connections, and how it ends."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.grpc_server import model_files
from tests.grpc_server.held_runs import holding_runs
from tests.grpc_server.running_server import RunningServer
from tests.grpc_server.server_in_process import Site
from tests.support.waiting import DEADLINE, wait_for

MIB = 2**20
INFER = "/v2/models/m/infer"
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [[1, 2, 3, 4]]}]}
).encode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    made.publish(model_files.held(1), "slow")
    return made


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[RunningServer]:
    with site.server("m", flags=["--max-message-mib", "4"]) as running:
        running.wait_until_healthy()
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def connection(server: RunningServer) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection(server.http_address, timeout=DEADLINE)
    yield made
    made.close()


Answer = tuple[int, Any, dict[str, str]]


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, **headers: str
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read()), dict(reply.getheaders())


def test_one_connection_serves_many_requests(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    port = connection.sock.getsockname()[1]
    for _ in range(20):
        status, reply, headers = ask(connection, "POST", INFER, BODY)
        assert (status, reply["outputs"][0]["data"]) == (200, [6.0, 7.0, 8.0, 9.0])
        assert connection.sock.getsockname()[1] == port
        assert (headers["ferry-version"], headers["ferry-generation"]) == ("1", "1")
        assert headers["ferry-digest"] == reply["parameters"]["ferry_digest"]
        assert headers["Server"] == "ferryline"
        assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/models/none", 404, "no model 'none' here"),
        ("GET", "/v2/models/m/versions/9", 404, "no warm version 9"),
        ("GET", "/v2/models/m/versions/last", 404, "'last' is no version and no channel that is followed"),
        ("GET", "/v2/models/m/versions/LAST", 400, "'LAST' is no version"),
        ("GET", "/v2/model", 404, "GET /v2/model is no path of the protocol"),
        ("GET", "/v2/models/m/infer", 405, "/v2/models/m/infer takes POST"),
        ("POST", "/v2/repository/models/m/load", 503, "is not allowed if polling is enabled"),
        ("POST", "/v2/repository/models/m/unload", 503, "is not allowed if polling is enabled"),
        ("GET", "/v2/trace/setting", 501, "trace settings"),
        ("POST", "/v2/models/m/trace/setting", 501, "trace settings"),
        ("GET", "/v2/logging", 501, "log settings"),
        ("GET", "/v2/systemsharedmemory/status", 501, "shared memory"),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501, "shared memory"),
    ],
)
def test_what_cannot_be_answered_has_a_status_and_a_text(
    connection: http.client.HTTPConnection, method: str, path: str, status: int, words: str
) -> None:
    found, reply, _ = ask(connection, method, path)
    assert (found, list(reply)) == (status, ["error"])
    assert words in reply["error"]


def test_every_document(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "GET", "/v2/health/live")[:2] == (200, {"live": True})
    status, readiness, _ = ask(connection, "GET", "/v2/health/ready")
    assert (status, readiness["ready"], readiness["models"]["m"]["version"]) == (200, True, 1)
    assert ask(connection, "GET", "/v2/models/m/ready")[:2] == (200, {"ready": True})
    assert ask(connection, "GET", "/v2/models/none/ready")[:2] == (400, {"ready": False})
    assert ask(connection, "GET", "/v2/models/m/versions/1")[1]["versions"] == ["1"]
    assert ask(connection, "GET", "/v2/models/m/config")[1]["input"][0]["dims"] == [4]
    assert ask(connection, "GET", "/v2/models/m/stats")[1]["model_stats"][0]["name"] == "m"
    assert len(ask(connection, "GET", "/v2/models/stats")[1]["model_stats"]) == 1
    index = [{"name": "m", "version": "1", "state": "READY", "reason": ""}]
    assert ask(connection, "POST", "/v2/repository/index", b'{"ready": true}')[1] == index
    assert ask(connection, "POST", "/v2/repository/index", b'{"ready": 1}')[0] == 400


def test_a_body_beyond_the_limit_is_refused_however_it_is_packed(
    connection: http.client.HTTPConnection, server: RunningServer
) -> None:
    status, reply, _ = ask(connection, "POST", INFER, b" " * 5 * MIB)
    assert (status, reply["error"]) == (
        413,
        "the request is larger than this server takes (--max-message-mib)",
    )
    connection.close()
    bomb = gzip.compress(b" " * 20 * MIB)
    assert len(bomb) < MIB
    assert ask(connection, "POST", INFER, bomb, Content_Encoding="gzip")[0] == 413
    connection.close()
    assert ask(connection, "POST", INFER, BODY)[0] == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_packed_bodies_both_ways(connection: http.client.HTTPConnection, encoding: str) -> None:
    packed = gzip.compress(BODY) if encoding == "gzip" else zlib.compress(BODY)
    named = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    connection.request("POST", INFER, packed, named)
    reply = connection.getresponse()
    data = reply.read()
    assert (reply.status, reply.getheader("Content-Encoding")) == (200, encoding)
    text = gzip.decompress(data) if encoding == "gzip" else zlib.decompress(data)
    assert json.loads(text)["outputs"][0]["data"] == [6.0, 7.0, 8.0, 9.0]


def test_a_body_that_cannot_be_unpacked_is_the_callers_fault(connection: http.client.HTTPConnection) -> None:
    status, reply, _ = ask(connection, "POST", INFER, b"no gzip at all", Content_Encoding="gzip")
    assert (status, list(reply)) == (400, ["error"])


def test_half_a_request_keeps_nobody_waiting(server: RunningServer) -> None:
    host, _, port = server.http_address.partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as half:
        half.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert server.plus() == 5


def test_a_request_under_way_is_answered_while_the_server_drains(site: Site) -> None:
    with holding_runs() as held, site.server("m", "slow") as server:
        server.wait_until_healthy()
        connection = http.client.HTTPConnection(server.http_address, timeout=DEADLINE)
        connection.request("POST", "/v2/models/slow/infer", BODY)
        idle = http.client.HTTPConnection(server.http_address, timeout=DEADLINE)
        assert ask(idle, "GET", "/v2/health/ready")[0] == 200
        server.ask_to_stop()
        wait_for(lambda: bool(server.events("draining")), "the drain")
        held.let_go()
        reply = connection.getresponse()
        assert (reply.status, json.loads(reply.read())["outputs"][0]["data"]) == (200, [2.0, 3.0, 4.0, 5.0])
        # a connection that only waits does not hold the server up
        assert server.wait() == 0
        idle.close()
        connection.close()


def test_http_can_be_left_out(site: Site) -> None:
    with site.server("m", flags=["--no-http"]) as server:
        server.wait_until_healthy()
        assert server.events("listening")[0]["http_port"] is None


def test_bytes_that_are_no_http_end_their_connection_and_fill_no_log(server: RunningServer) -> None:
    host, _, port = server.http_address.partition(":")
    for data in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"POST \xff\xfe HTTP/1.1\r\nA" * 9):
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as odd:
            odd.sendall(data + b"\r\n\r\n")
            assert odd.recv(100).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.1 404"))
    assert server.plus() == 5
