"""What the S3 client sends and makes of answers, with a server that gives any answer one likes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ferryline.registry.errors import StoreUnreachableError
from ferryline.registry.stores.s3 import S3Store
from tests.support.waiting import DEADLINE


class _Recorder(BaseHTTPRequestHandler):
    """Answers every request with `status` and keeps its headers."""

    status = 412
    seen: list[dict[str, str]]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append({"method": self.command, **{k.lower(): v for k, v in self.headers.items()}})
        code = {409: "ConditionalRequestConflict", 412: "PreconditionFailed", 501: "NotImplemented"}.get(
            self.status, "SlowDown"
        )
        is_refused = self.status != 501 or "if-match" in self.seen[-1]
        body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
        self.send_response(self.status if is_refused else 200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def recorder() -> Iterator[tuple[str, type[_Recorder]]]:
    handler = type("Handler", (_Recorder,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join(DEADLINE)


def test_put_if_absent_sends_the_condition_itself(recorder: tuple[str, type[_Recorder]]) -> None:
    endpoint, handler = recorder
    store = S3Store("bucket", endpoint=endpoint, secure=False)
    assert store.put_if_absent("key", b"data") is False
    assert [request.get("if-none-match") for request in handler.seen] == ["*"]
    assert not any("x-amz-meta" in name for request in handler.seen for name in request)


@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize("tag", ['"tag"', 'W/"tag"'])  # a weak one would never match
def test_a_conditional_rewrite_that_came_too_late_is_none(
    recorder: tuple[str, type[_Recorder]], status: int, tag: str
) -> None:
    endpoint, handler = recorder
    handler.status = status
    store = S3Store("bucket", endpoint=endpoint, secure=False)
    assert store.put_if_unchanged("key", b"data", tag) is False
    assert [request.get("if-match") for request in handler.seen] == ['"tag"']


def test_a_service_that_knows_no_such_condition_gets_the_rewrite_without(
    recorder: tuple[str, type[_Recorder]],
) -> None:
    endpoint, handler = recorder
    handler.status = 501
    store = S3Store("bucket", endpoint=endpoint, secure=False)
    assert store.put_if_unchanged("key", b"data", '"tag"') is True
    assert [request.get("if-match") for request in handler.seen] == ['"tag"', None]


def test_the_stores_time_is_what_its_answers_say(
    recorder: tuple[str, type[_Recorder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, handler = recorder
    monkeypatch.setattr(handler, "date_time_string", lambda _: "Sun, 06 Nov 1994 08:49:37 GMT")
    store = S3Store("bucket", endpoint=endpoint, secure=False)
    assert store.now().year > 1994, "this machine's, before anything was heard"
    store.put_if_absent("key", b"data")
    assert timedelta() <= store.now() - datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC) < timedelta(hours=1)
    monkeypatch.setattr(handler, "date_time_string", lambda _: "no date")
    store.put_if_absent("key", b"data")
    assert store.now().year == 1994


def test_a_write_is_sent_once_whatever_the_answer(recorder: tuple[str, type[_Recorder]]) -> None:
    endpoint, handler = recorder
    handler.status = 503
    store = S3Store("bucket", endpoint=endpoint, secure=False)
    with pytest.raises(StoreUnreachableError, match="SlowDown"):
        store.put_if_absent("key", b"data")
    assert len(handler.seen) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><br></html>", b"<other/>", b"<Error><Code>NoSuchKey"],
    ids=["none", "html", "xml", "cut"],
)
def test_a_server_that_is_no_s3_is_said_so(recorder: tuple[str, type[_Recorder]], body: bytes) -> None:
    endpoint, handler = recorder

    def answer(self: _Recorder) -> None:
        self.send_response(404 if b"Error" in body else 200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    handler.do_GET = answer  # type: ignore[attr-defined]
    with pytest.raises(StoreUnreachableError, match="is the endpoint right"):
        list(S3Store("bucket", endpoint=endpoint, secure=False).list("models/"))


def test_a_store_that_is_down_is_said_so_at_once() -> None:
    store = S3Store("bucket", endpoint="127.0.0.1:1", secure=False)
    with pytest.raises(StoreUnreachableError, match="is the server up"):
        store.get("key")
