"""One call: a stream, its request, its deadline and its answer.

`DirectCall` is the hot path: a call with one request, whose answer is made of its bytes without a task
where it is there at once. `TaskCall` is for all others: a task serves it.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

import grpc

from ferryline.grpc_server.call import Call
from ferryline.grpc_server.errors import InvalidRequestError, RequestError, TooLargeError, UnsupportedError
from ferryline.grpc_server.http2.connection import Connection, Stream
from ferryline.grpc_server.http2.errors import Code
from ferryline.grpc_server.http2.messages import PREFIX_BYTES, MessageReader, framed, only_message
from ferryline.grpc_server.http2.metadata import HEAD, Pairs, failed_trailers, ok_trailers
from ferryline.grpc_server.packing import FIRST_BYTES, Unpacker
from ferryline.grpc_server.provenance import Provenance

DEADLINE_TEXT = "the deadline passed before there was an answer"

Answer = Callable[[bytes, Call], bytes | Awaitable[bytes]]
"""Answers the bytes of a request, at once or to be awaited; `RequestError` where there is no answer."""


Aborted = Callable[[RequestError], tuple[grpc.StatusCode, str, Pairs]]
"""The status, text and trailing metadata that say an error."""


class Served(Protocol):
    """What direct calls of a server have in common."""

    aborted: Aborted
    unpacker: Unpacker
    max_message_bytes: int


def answer_too_large(answer: bytes, most: int) -> TooLargeError:
    """Why an answer cannot be sent."""
    return TooLargeError(
        f"the answer is larger than this server sends: {len(answer)} bytes, {most} allowed "
        "(--max-message-mib)"
    )


class Link(Protocol):
    """The connection's socket, as its calls know it."""

    peer: str
    """Who calls, as gRPC writes addresses."""

    @property
    def common_names(self) -> Iterable[bytes]:
        """Those in the certificate that the caller showed."""
        ...

    def flush_soon(self) -> None:
        """Send what the connection has to be sent, at the end of this turn of the loop at the latest."""
        ...

    async def writable(self) -> None:
        """Return when the socket takes more."""
        ...


class _Call(Stream):
    """What all calls have: a deadline, metadata, and an end with a status."""

    __slots__ = ("_begun", "_timer", "deadline", "is_over", "link")

    def __init__(self, connection: Connection, number: int, link: Link, *, ended: bool) -> None:
        super().__init__(connection, number, ended=ended)
        self.link = link
        self.deadline: float | None = None
        """By `time.monotonic`."""
        self.is_over = False
        """Whether its answer has ended, or nobody waits for it."""
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None

    def seconds_left(self) -> float | None:
        """Seconds until the caller stops waiting; None for never."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def watch_deadline(self) -> None:
        """End the call at its deadline if nothing has until then."""
        left = self.seconds_left()
        if left is not None and not self.is_over:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, left), self._expired)

    def fail(self, status: grpc.StatusCode, text: str, metadata: Pairs = ()) -> None:
        """End the call with an error."""
        self._finish(status.value[0], text, metadata)

    def _finish(self, status: int, text: str, metadata: Pairs) -> None:
        if self.is_over:
            return
        self._over()
        trailers = ok_trailers(metadata) if status == 0 else failed_trailers(status, text, metadata)
        if not self._begun:
            trailers = (*HEAD, *trailers)
        self.connection.finish(self, trailers)
        self.link.flush_soon()

    def _over(self) -> None:
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _expired(self) -> None:
        if self.is_over:
            return
        self._cancel()
        if self.unsent is None:
            self.fail(grpc.StatusCode.DEADLINE_EXCEEDED, DEADLINE_TEXT)
        else:
            self._over()
            self.connection.reset(self, Code.CANCEL)
            self.link.flush_soon()

    def was_reset(self) -> None:
        if not self.is_over:
            self._over()
            self._cancel()

    def was_sent(self) -> None:
        """Only those that write piece by piece wait for that."""

    @abstractmethod
    def _cancel(self) -> None:
        """Nobody waits for an answer any more."""


class DirectCall(_Call):
    """A call with one request and one answer, made of its bytes."""

    __slots__ = ("_answer", "_messages", "_provenance", "_reader", "_served", "_task")

    def __init__(
        self, connection: Connection, number: int, link: Link, served: Served, answer: Answer, *, ended: bool
    ) -> None:
        super().__init__(connection, number, link, ended=ended)
        self._served = served
        self._answer = answer
        self._reader: MessageReader | None = None
        """Of a request that did not come in one frame."""
        self._messages: list[bytes] = []
        self._provenance: Provenance | None = None
        self._task: asyncio.Task[None] | None = None

    def answered_by(self, provenance: Provenance) -> None:
        """Kept for the trailing metadata."""
        self._provenance = provenance

    def received(self, data: bytes) -> None:
        """Answer once the request is whole, which it mostly is with its first frame."""
        if self._reader is None:
            message = only_message(data) if self.ended else None
            if message is not None:
                self._serve(message)
                return
            self._reader = MessageReader(self._served.max_message_bytes)
        try:
            self._messages += self._reader.feed(data)
        except RequestError as error:
            self._abort(error)
            return
        self.connection.consumed(self, len(data))
        if len(self._messages) > 1:  # more of them may come for ever
            self._abort(UnsupportedError("this call takes one request, and more came with it"))
        elif self.ended:
            self._ended(is_whole=not self._reader.held)

    def _ended(self, *, is_whole: bool) -> None:
        if not is_whole:
            self._abort(InvalidRequestError("the request is cut off: its message is shorter than it says"))
        elif self._messages:
            self._serve(self._messages.pop())
        else:
            self._abort(UnsupportedError("this call takes one request, and none came with it"))

    def _serve(self, message: bytes) -> None:
        if message[:1] in FIRST_BYTES:
            self._later(self._unpacked(message))
            return
        try:
            answer = self._answer(message, self)
        except RequestError as error:
            self._abort(error)
            return
        if isinstance(answer, bytes):
            self._reply(answer)
        else:
            self._later(answer)

    async def _unpacked(self, message: bytes) -> bytes:
        answer = self._answer(await self._served.unpacker.unpack(message), self)
        return answer if isinstance(answer, bytes) else await answer

    def _later(self, answer: Awaitable[bytes]) -> None:
        self._task = asyncio.ensure_future(self._awaited(answer))

    async def _awaited(self, answer: Awaitable[bytes]) -> None:
        try:
            reply = await answer
        except RequestError as error:
            self._abort(error)
        else:
            self._reply(reply)

    def _reply(self, reply: bytes) -> None:
        if self.is_over:
            return
        if len(reply) > self._served.max_message_bytes:
            self._abort(answer_too_large(reply, self._served.max_message_bytes))
            return
        self._over()
        provenance = self._provenance
        trailers = ok_trailers(() if provenance is None else provenance.metadata())
        self.connection.answer(self, HEAD, framed(reply), trailers)
        self.link.flush_soon()

    def _abort(self, error: RequestError) -> None:
        self.fail(*self._served.aborted(error))

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class TaskCall(_Call):
    """A call that a task serves, with any number of requests and answers.

    Args:
        most: bytes of the largest message it takes.
        metadata: what the caller sent along.
        serve: serves it, and ends it.
        is_aside: whether it is about the server itself, and may be cut when that stops.
    """

    __slots__ = (
        "_arrived",
        "_credited",
        "_fault",
        "_got",
        "_messages",
        "_reader",
        "_sent",
        "_serve",
        "_task",
        "_unread",
        "metadata",
        "most",
    )

    def __init__(
        self,
        connection: Connection,
        number: int,
        link: Link,
        most: int,
        metadata: Pairs,
        serve: Callable[[TaskCall], Coroutine[Any, Any, None]],
        *,
        ended: bool,
        is_aside: bool = False,
    ) -> None:
        super().__init__(connection, number, link, ended=ended)
        self.is_aside = is_aside
        self._reader = MessageReader(most)
        self.most = most
        """Bytes of the largest message, either way."""
        self.metadata = metadata
        """What the caller sent along."""
        self._serve = serve
        self._task: asyncio.Task[None] | None = None
        self._messages: deque[bytes] = deque()
        self._fault: RequestError | None = None
        self._arrived = asyncio.Event()
        self._sent = asyncio.Event()
        self._got = self._credited = self._unread = 0

    def start(self) -> asyncio.Task[None]:
        """Begin to serve it."""
        self._task = asyncio.ensure_future(self._serve(self))
        return self._task

    def received(self, data: bytes) -> None:
        """Keep what came until it is read."""
        self._arrived.set()
        if self._fault is not None:
            return
        try:
            found = self._reader.feed(data)
        except RequestError as error:
            self._fault = error
            return
        self._got += len(data)
        self._messages += found
        self._unread += sum(len(message) + PREFIX_BYTES for message in found)
        self._give_back()

    async def read(self) -> bytes | None:
        """The next message; None after the last.

        Raises:
            InvalidRequestError: what came is no gRPC, or ends within a message.
            TooLargeError: a message is larger than this server takes.
        """
        while not self._messages:
            if self._fault is not None:
                raise self._fault
            if self.ended:
                if self._reader.held:
                    raise InvalidRequestError("the requests are cut off: the last is shorter than it says")
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._unread -= len(message) + PREFIX_BYTES
        self._give_back()
        self.link.flush_soon()
        return message

    async def write(self, message: bytes) -> None:
        """Send a message; return when the next one may be sent."""
        if self.is_over:
            return
        if not self._begun:
            self._begun = True
            self.connection.begin(self, HEAD)
        await self.link.writable()
        if self.is_over:
            return
        self._sent.clear()
        done = self.connection.send(self, framed(message))
        self.link.flush_soon()
        if not done:
            await self._sent.wait()

    def succeed(self, metadata: Pairs) -> None:
        """End the call well."""
        self._finish(0, "", metadata)

    def was_sent(self) -> None:
        """Let the next message go."""
        self._sent.set()

    def _give_back(self) -> None:
        """Let the caller send as many bytes as do not wait to be read."""
        size = self._got - self._unread - self._credited
        if size > 0:
            self._credited += size
            self.connection.consumed(self, size)

    def _cancel(self) -> None:
        self._sent.set()
        if self._task is not None:
            self._task.cancel()
