"""A proxy before an S3 server that loses, repeats, cuts and damages what passes through it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.waiting import DEADLINE


class Mishap(Enum):
    """What happens to one exchange."""

    NONE = auto()
    REQUEST_LOST = auto()  # the connection breaks before the server saw anything
    ANSWER_LOST = auto()  # the server did it, then the connection breaks
    REPEATED = auto()  # the request reaches the server twice; the second answer comes back
    ANSWER_CUT = auto()  # half of the announced body comes, then the connection breaks
    ANSWER_SHORT = auto()  # half of the body comes, and is announced so
    ANSWER_FLIPPED = auto()  # one bit of the body is wrong
    BUSY = auto()  # 503 SlowDown, and the server saw nothing
    BUSY_AFTER = auto()  # 503 SlowDown, though the server did it
    CONFLICTED = auto()  # 409, as S3 answers to two conditional writes at once


@dataclass(slots=True)
class Wire:
    """The proxy as a test uses it.

    `plan` says what happens to the exchanges of one method and key, in order; all others pass untouched.
    """

    address: str = ""
    method: str = ""
    part: str = ""
    plan: list[Mishap] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, method: str, part: str, *plan: Mishap) -> None:
        """What befalls requests with `method` whose path contains `part`, from now on."""
        self.method, self.part, self.plan = method, part, list(plan)

    def mishap(self, method: str, path: str) -> Mishap:
        """What befalls this request."""
        with self._lock:
            self.passed.append((method, path))
            hit = method == self.method and self.part in path and self.plan
            return self.plan.pop(0) if hit else Mishap.NONE


@contextmanager
def between(server: str) -> Iterator[Wire]:
    """A proxy before the server at `host:port`."""
    wire = Wire()
    handler = type("Handler", (_Handler,), {"server_address": server, "wire": wire})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    wire.address = f"127.0.0.1:{proxy.server_port}"
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(DEADLINE)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_address: str
    wire: Wire

    def do_GET(self) -> None:
        self._exchange()

    def do_PUT(self) -> None:
        self._exchange()

    def do_HEAD(self) -> None:
        self._exchange()

    def do_DELETE(self) -> None:
        self._exchange()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def _exchange(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mishap = self.wire.mishap(self.command, self.path)
        if mishap is Mishap.REQUEST_LOST:
            self._break()
        elif mishap is Mishap.BUSY:
            self._error(503, "SlowDown")
        elif mishap is Mishap.CONFLICTED:
            self._error(409, "ConditionalRequestConflict")
        else:
            if mishap is Mishap.REPEATED:
                self._forward(body)
            self._answer(mishap, *self._forward(body))

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self.server_address, timeout=DEADLINE)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # the host among them, which is signed
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response, data

    def _answer(self, mishap: Mishap, response: http.client.HTTPResponse, data: bytes) -> None:
        if mishap is Mishap.ANSWER_LOST:
            self._break()
            return
        if mishap is Mishap.BUSY_AFTER:
            self._error(503, "SlowDown")
            return
        announced, data = _damaged(mishap, data)
        self.send_response(response.status)
        for name, value in response.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        if response.status not in {204, 304}:
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(data if self.command != "HEAD" else b"")
        if announced != len(data):
            self._break()

    def _error(self, status: int, code: str) -> None:
        data = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _break(self) -> None:
        self.close_connection = True


def _damaged(mishap: Mishap, data: bytes) -> tuple[int, bytes]:
    """The length that is announced, and the body that is sent."""
    half = data[: len(data) // 2]
    match mishap:
        case Mishap.ANSWER_CUT:
            return len(data), half
        case Mishap.ANSWER_SHORT:
            return len(half), half
        case Mishap.ANSWER_FLIPPED:
            middle = len(half)
            return len(data), half + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        case _:
            return len(data), data
