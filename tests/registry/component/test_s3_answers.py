"""What the S3 client sends and makes of answers, with a server that gives any answer one likes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
        body = b"<Error><Code>PreconditionFailed</Code><Message>m</Message></Error>"
        if self.status != 412:
            body = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
        self.send_response(self.status)
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
