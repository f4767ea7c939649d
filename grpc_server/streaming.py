"""ModelStreamInfer: many requests over one call, each with one answer, in their order.

A reader takes requests and begins to answer them, a writer sends the answers in the order of the requests. So
reading, running and writing overlap, and the requests of one stream can be batched with each other. A request
that fails is answered with an error_message, and the stream goes on; this is Triton's wire form.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from ferryline.grpc_server.call import UNBOUNDED, Call
from ferryline.grpc_server.endpoint import Endpoint
from ferryline.grpc_server.errors import RequestError
from ferryline.grpc_server.replies import length_delimited
from ferryline.protos import grpc_service_pb2 as pb

NAME = "ModelStreamInfer"

MOST_PENDING = 64
"""Requests of one stream that are under way at once; the next is not read before one is answered."""
MOST_PENDING_BYTES = 16 * 2**20
"""Likewise for the bytes of requests and answers, so that a slow reader costs little memory."""
FIRST_ANSWER_BYTES = MOST_PENDING_BYTES // 8
"""What an awaited answer is taken for until a stream has had one; from then on, for its largest so far."""

FINAL_WANTED = b"triton_enable_empty_final_response"
_SEARCHED = 4096
"""Parameters precede the tensors' data, which may be long and are not searched."""

_INFER_RESPONSE = bytes((pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | 2,))


def _final_parameter() -> bytes:
    reply = pb.ModelInferResponse()
    reply.parameters["triton_final_response"].bool_param = True
    return reply.SerializeToString()


_FINAL = _final_parameter()


class StreamAnswers:
    """Answers one request of a stream on its bytes; never raises for a request's sake.

    Args:
        infer: what answers a request outside of a stream.
    """

    def __init__(self, infer: Endpoint[pb.ModelInferRequest]) -> None:
        self._infer = infer

    def __call__(self, data: bytes, call: Call = UNBOUNDED) -> bytes | Awaitable[bytes]:
        """The serialised `ModelStreamInferResponse`, at once or to be awaited."""
        try:
            answer = self._infer(data, call)
        except RequestError as error:
            return _failed(data, error)
        return _wrapped(data, answer) if isinstance(answer, bytes) else self._awaited(data, answer)

    def failed(self, error: RequestError) -> bytes:
        """The answer to a request whose id is not known."""
        return _failed(b"", error)

    async def _awaited(self, data: bytes, answer: Awaitable[bytes]) -> bytes:
        try:
            return _wrapped(data, await answer)
        except RequestError as error:
            return _failed(data, error)


def _wrapped(data: bytes, reply: bytes) -> bytes:
    if data.find(FINAL_WANTED, 0, _SEARCHED) >= 0:
        reply += _FINAL
    return length_delimited(_INFER_RESPONSE, reply)


def _failed(data: bytes, error: RequestError) -> bytes:
    reply = pb.ModelStreamInferResponse(error_message=str(error))
    with contextlib.suppress(DecodeError):
        reply.infer_response.id = pb.ModelInferRequest.FromString(data).id
    return reply.SerializeToString()


@dataclass(slots=True, eq=False)
class _Pending:
    """An answer that is not out yet, and the bytes that it and its request hold."""

    answer: bytes | asyncio.Future[bytes]
    size: int


class OrderedStream:
    """One stream: reads, answers and writes until the caller has sent all, or `finish` is called.

    Args:
        answer: gives the answer to a request.
        read: gives the next request, or `end`.
        write: sends an answer; returns when the next one may be sent.
        end: what `read` gives after the last request.
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes | Awaitable[bytes]],
        read: Callable[[], Awaitable[Any]],
        write: Callable[[bytes], Awaitable[None]],
        end: object,
    ) -> None:
        self._answer = answer
        self._read = read
        self._write = write
        self._end = end
        self._pending: deque[_Pending] = deque()
        self._bytes = 0
        self._largest: int | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self.cut_short = False

    async def run(self) -> None:
        """Serve the stream to its end; whatever is under way is cancelled if this is."""
        self._reader = asyncio.ensure_future(self._read_all())
        self._reader.add_done_callback(lambda _task: self._news.set())
        try:
            await self._write_all(self._reader)
        finally:
            self._reader.cancel()
            for pending in self._pending:
                if isinstance(pending.answer, asyncio.Future):
                    pending.answer.cancel()
        if not self._reader.cancelled():
            self._reader.result()  # raises what reading raised

    def finish(self) -> None:
        """Read no more; what was read is still answered."""
        self.cut_short = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read_all(self) -> None:
        while (data := await self._read()) is not self._end:
            answer = self._answer(data)
            if isinstance(answer, bytes):
                self._append(_Pending(answer, len(data) + len(answer)))
            else:
                self._append(self._awaited(answer, len(data)))
            while len(self._pending) >= MOST_PENDING or self._bytes > MOST_PENDING_BYTES:
                self._room.clear()
                await self._room.wait()

    def _append(self, pending: _Pending) -> None:
        self._pending.append(pending)
        self._bytes += pending.size
        self._news.set()

    def _awaited(self, answer: Awaitable[bytes], request_size: int) -> _Pending:
        """An answer whose size is known only when it is there."""
        expected = FIRST_ANSWER_BYTES if self._largest is None else self._largest
        future = asyncio.ensure_future(answer)
        pending = _Pending(future, request_size + expected)

        def there(_future: asyncio.Future[bytes]) -> None:
            if future.cancelled() or future.exception() is not None:
                return
            size = len(future.result())
            self._largest = max(self._largest or 0, size)
            self._bytes += request_size + size - pending.size
            pending.size = request_size + size
            self._room.set()

        future.add_done_callback(there)
        return pending

    async def _write_all(self, reader: asyncio.Task[None]) -> None:
        while True:
            while self._pending:
                # it stays in its place until it is out, so that it counts and can be cancelled
                pending = self._pending[0]
                answer = pending.answer
                await self._write(answer if isinstance(answer, bytes) else await answer)
                self._pending.popleft()
                self._bytes -= pending.size
                self._room.set()
            if reader.done():
                return
            self._news.clear()
            await self._news.wait()
