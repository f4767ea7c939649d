"""Sockets: connections that come and go, calls that are handed on, and the end of it all."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import grpc
import structlog

from ferryline.grpc_server.errors import RequestError
from ferryline.grpc_server.http2.calls import Aborted, Answer, DirectCall, TaskCall
from ferryline.grpc_server.http2.connection import Connection, Stream
from ferryline.grpc_server.http2.contexts import CallDetails, find_handler, serve_call
from ferryline.grpc_server.http2.errors import ConnectionFaultError
from ferryline.grpc_server.http2.fields import Block
from ferryline.grpc_server.http2.heads import Head
from ferryline.grpc_server.http2.metadata import HEAD, failed_trailers, metadata_in
from ferryline.grpc_server.packing import Unpacker

GREETING_SECONDS = 20.0
"""A connection that has said nothing by then is closed."""
KEEPALIVE_SECONDS = 60.0
"""A caller with calls under way that is silent for so long is pinged, and has as long to answer."""
IDLE_LOOKS = 10
"""One without is pinged after so many times as long."""
LOOK_SECONDS = 0.02
"""Between two looks at whether calls are still under way."""
BACKLOG = 1024
ASIDE = "/grpc."
"""How the methods of health and reflection begin, whose streams may stay open for ever."""
LAST_CALLS_SECONDS = 0.1
"""Between asking callers to begin no more calls and refusing those that they begin."""
HIGH_WATER = 2**18
"""Bytes that wait in one socket; above, nothing is read from it."""
MOST_WAITING = 2**26
"""Bytes of one connection's answers that wait for windows; above, no call is taken."""

log = structlog.get_logger(__name__)

Admit = Callable[[str, str | None], object]
"""Raises `RequestError` where a caller may not call an RPC; takes its name, and the header of the caller."""


class Calls:
    """What serves the calls of a server.

    Args:
        handlers: as of grpc.aio; asked in their order.
        direct: by path, what answers a request by its bytes; asked before the handlers.
        aborted: how errors of those are said.
        unpacker: unpacks their requests.
        max_message_bytes: of one request.
        admit: asked before a direct call; None where all may call.
        admitted_by: the header that it wants.
    """

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        direct: Mapping[str, Answer],
        *,
        aborted: Aborted,
        unpacker: Unpacker,
        max_message_bytes: int,
        admit: Admit | None = None,
        admitted_by: str = "",
    ) -> None:
        self.handlers = tuple(handlers)
        self.direct = direct
        self.aborted = aborted
        self.unpacker = unpacker
        self.max_message_bytes = max_message_bytes
        self.admit = admit
        self.admitted_by = admitted_by.encode()
        self.came = 0
        """Direct calls so far."""


class Link(asyncio.Protocol):
    """One socket, its connection and the calls on it."""

    def __init__(self, calls: Calls, links: set[Link]) -> None:
        self._calls = calls
        self._links = links
        self._connection = Connection(self._accept, Head.of)
        self._transport: asyncio.Transport
        self._is_receiving = False
        self._is_flushing = False
        self._fresh: list[DirectCall | TaskCall] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._loop = asyncio.get_running_loop()
        self._heard = 0
        """Reads so far; silence is that this does not change."""
        self._timer: asyncio.TimerHandle | None = None
        self.peer = ""

    @property
    def common_names(self) -> Iterable[bytes]:
        """Those in the certificate that the caller showed."""
        certificate = self._transport.get_extra_info("peercert") or {}
        for part in certificate.get("subject", ()):
            yield from (value.encode() for key, value in part if key == "commonName")

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way that a stop should wait for."""
        return all(stream.is_aside for stream in self._connection.streams.values())

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller has connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self.peer = _peer(transport.get_extra_info("peername"))
        self._links.add(self)
        self._timer = self._loop.call_later(GREETING_SECONDS, self._greeted_in_time)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Bytes came: calls begin, go on and are answered."""
        self._heard += 1
        self._is_receiving = True
        try:
            self._connection.receive(data)
        except ConnectionFaultError as fault:
            log.debug("a connection is closed", peer=self.peer, code=fault.code.name, reason=str(fault))
            self._flush()
            self._transport.close()
        finally:
            self._is_receiving = False
        if self._fresh:
            for call in self._fresh:
                call.watch_deadline()
            self._fresh.clear()
        self._flush()

    def pause_writing(self) -> None:
        """The caller reads slower than it asks: ask it to wait, and do not take more from it."""
        self._writable.clear()
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It has read."""
        self._writable.set()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        """The caller is gone."""
        self._links.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._writable.set()
        self._connection.lost()

    # What calls need

    def flush_soon(self) -> None:
        """Send what there is: with what else this turn of the loop brings."""
        if not self._is_receiving and not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    async def writable(self) -> None:
        """Return when the socket takes more."""
        await self._writable.wait()

    # The end

    def say_that_it_ends(self) -> None:
        """Ask the caller to begin no more calls."""
        self._connection.say_that_it_ends()
        self._flush()

    def end_now(self) -> None:
        """Refuse calls from now on."""
        self._connection.end_now()
        self._flush()

    def close(self) -> None:
        """Close once all is written."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _flush(self) -> None:
        self._is_flushing = False
        data = self._connection.taken()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _accept(self, connection: Connection, number: int, head: Head, *, ended: bool) -> Stream | None:
        refusal = head.refusal or self._overrun(connection)
        if refusal is not None:
            connection.refuse(number, refusal)
            return None
        answer = self._calls.direct.get(head.path)
        if answer is None:
            call: DirectCall | TaskCall = self._task_call(connection, number, head, ended=ended)
        else:
            if self._calls.admit is not None and not self._is_admitted(number, head):
                return None
            self._calls.came += 1
            call = DirectCall(connection, number, self, self._calls, answer, ended=ended)
        if head.timeout is not None:
            call.deadline = time.monotonic() + head.timeout
            self._fresh.append(call)
        return call

    def _task_call(self, connection: Connection, number: int, head: Head, *, ended: bool) -> TaskCall:
        metadata, most = metadata_in(head.fields), self._calls.max_message_bytes
        handler = find_handler(self._calls.handlers, CallDetails(head.path, metadata))

        async def serve(call: TaskCall) -> None:
            if handler is None:
                call.fail(grpc.StatusCode.UNIMPLEMENTED, "this server has no such method")
            else:
                await serve_call(call, handler)

        is_aside = head.path.startswith(ASIDE)
        call = TaskCall(connection, number, self, most, metadata, serve, ended=ended, is_aside=is_aside)
        call.start()
        return call

    def _is_admitted(self, number: int, head: Head) -> bool:
        calls = self._calls
        headers = [value for name, value in head.fields if name == calls.admitted_by]
        header = headers[0].decode("utf-8", "replace") if len(headers) == 1 else None
        try:
            assert calls.admit is not None  # noqa: S101 - for the type checker; the caller has looked
            calls.admit(head.path.rpartition("/")[2], header)
        except RequestError as error:
            status, text, metadata = calls.aborted(error)
            self._connection.refuse(number, (*HEAD, *failed_trailers(status.value[0], text, metadata)))
            return False
        return True

    def _overrun(self, connection: Connection) -> Block | None:
        """What to say to a caller who asks and does not read."""
        if connection.waiting_bytes() <= MOST_WAITING:
            return None
        text = "answers that nobody reads fill this connection's room: read them before you ask more"
        return (*HEAD, *failed_trailers(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], text))

    def _greeted_in_time(self) -> None:
        if self._heard == 0:
            self._transport.close()
        else:
            self._look(self._heard, self._transport.get_write_buffer_size(), 0)

    def _look(self, heard: int, unwritten: int, silent: int) -> None:
        """Ping a caller that has been silent for long, and leave one that does not answer that either."""
        left = self._transport.get_write_buffer_size()
        if self._heard != heard or left != unwritten:
            silent = 0
        limit = 1 if self._connection.streams else IDLE_LOOKS
        if silent > limit:
            log.info("a caller is gone without a word", peer=self.peer)
            self._transport.abort()
            return
        if silent == limit:
            self._connection.ping()
            self._flush()
        again = (self._heard, left, silent + 1)
        self._timer = self._loop.call_later(KEEPALIVE_SECONDS, lambda: self._look(*again))


class Http2Server:
    """Listens on one address.

    Args:
        calls: what serves the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None

    @property
    def came(self) -> int:
        """Direct calls so far."""
        return self._calls.came

    async def start(self, host: str, port: int, *, share_port: bool, context: ssl.SSLContext | None) -> int:
        """Listen, and give the port.

        Args:
            host: a name or an address of this machine.
            port: 0 lets the system choose one.
            share_port: whether other processes listen on the same port.
            context: for TLS; None for connections that nothing protects.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Link(self._calls, self._links),
            host,
            port,
            backlog=BACKLOG,
            reuse_port=share_port,
            ssl=context,
            ssl_handshake_timeout=None if context is None else GREETING_SECONDS,
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self, grace: float) -> None:
        """Take no more calls, wait up to `grace` seconds for those that are under way, and close."""
        deadline = time.monotonic() + grace
        if self._server is not None:
            self._server.close()
        for link in tuple(self._links):
            link.say_that_it_ends()
        await asyncio.sleep(min(LAST_CALLS_SECONDS, grace))
        for link in tuple(self._links):
            link.end_now()
        while self._links and time.monotonic() < deadline:
            self._close_idle()
            await asyncio.sleep(LOOK_SECONDS)
        self._close_idle()
        await asyncio.sleep(0)
        for link in tuple(self._links):
            link.abort()

    def _close_idle(self) -> None:
        for link in tuple(self._links):
            if link.is_idle:
                link.close()


def _peer(address: Any) -> str:
    """An address as gRPC writes it."""
    if not isinstance(address, tuple):
        return "unknown"
    host, port = address[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
