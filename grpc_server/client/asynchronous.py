"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from ferryline.grpc_server.client.blocking import SENT_AHEAD
from ferryline.grpc_server.client.contract import Inputs, ModelInfo
from ferryline.grpc_server.client.errors import InferenceError, of_rpc, of_status
from ferryline.grpc_server.client.messages import Answer, Parameters, Question, streamed_answer_of
from ferryline.grpc_server.client.options import Connection, Retry, Tls, Token
from ferryline.grpc_server.client.steps import REPLIES, SERVICE, STREAM, Ask, Conversations, Steps, to_request
from ferryline.protos.grpc_service_pb2 import ModelInferRequest, ModelStreamInferResponse

_END = object()

_Result = TypeVar("_Result")


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited. To be made and used within one event loop.

    Args:
        address: `host:port`, or anything gRPC can resolve.
        timeout: seconds that a call and its retries may take together; None for no end.
        retry: when a question is asked again; `NO_RETRY` for never.
        tls: None for plaintext.
        token: a bearer token, or what gives the one of the moment.
        metadata: sent with every call.
        check_inputs: as in `Client`.
        plaintext_token: whether a token may leave this machine without TLS.
        options: gRPC's own options of the channel.

    Raises:
        UsageError: the settings do not go together, or a certificate cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = 10.0,
        retry: Retry = Retry(),  # noqa: B008 - it is frozen
        tls: Tls | None = None,
        token: Token | None = None,
        metadata: Mapping[str, str] | None = None,
        check_inputs: bool = True,
        plaintext_token: bool = False,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._connection = Connection(
            address, tls, token, metadata or {}, plaintext_token=plaintext_token, options=options
        )
        self._timeout = timeout
        self._conversations = Conversations(retry, check_inputs=check_inputs)
        self._channel = _channel(self._connection)
        self._methods = {
            name: self._channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=_serialise,
                response_deserializer=reply.FromString,
            )
            for name, reply in REPLIES.items()
        }

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | str = "",
        outputs: Sequence[str] = (),
        request_id: str = "",
        parameters: Parameters | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the deadline the server is told
    ) -> Answer:
        """Run a model; see `Client.infer`.

        Raises:
            InputError: the inputs do not fit the model; nothing was sent.
            InferenceError: there was no answer.
        """
        question = Question(model, str(version), outputs, request_id, parameters or {})
        steps = self._conversations.infer(question, inputs, self._seconds(timeout))
        return await self._do(steps, metadata)

    async def stream(
        self,
        model: str,
        *,
        version: int | str = "",
        outputs: Sequence[str] = (),
        parameters: Parameters | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncStream:
        """A stream of requests to a model over one call; see `Client.stream`.

        Raises:
            InferenceError: the server does not say what the model takes.
        """
        question = Question(model, str(version), outputs, "", parameters or {})
        info = await self._do(self._conversations.stream(question, self._timeout), metadata)
        method = self._channel.stream_stream(
            f"/{SERVICE}/{STREAM}",
            request_serializer=_serialise,
            response_deserializer=ModelStreamInferResponse.FromString,
        )
        return AsyncStream(partial(method, metadata=self._connection.call_metadata(metadata)), question, info)

    async def model(
        self,
        name: str,
        version: int | str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> ModelInfo:
        """What a model takes and gives.

        Raises:
            InferenceError: there was no answer.
        """
        return await self._do(self._conversations.model(name, str(version), self._seconds(timeout)))

    async def live(self, *, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as above
        """Whether a server answers there."""
        return await self._do(self._conversations.live(self._seconds(timeout)))

    async def ready(
        self,
        model: str = "",
        version: int | str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> bool:
        """Whether a model can be asked; whether all models of the server can, where none is named."""
        return await self._do(self._conversations.ready(model, str(version), self._seconds(timeout)))

    async def wait_until_ready(
        self,
        model: str = "",
        version: int | str = "",
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - as above
    ) -> None:
        """Return once it is ready.

        Raises:
            TimedOutError: it did not become so within `timeout` seconds.
        """
        await self._do(self._conversations.wait_until_ready(model, str(version), timeout))

    async def close(self) -> None:
        """Close the channel; calls under way end with CANCELLED."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout

    async def _do(self, steps: Steps[_Result], metadata: Mapping[str, str] | None = None) -> _Result:
        try:
            step = next(steps)
            while True:
                if not isinstance(step, Ask):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    reply = await self._ask(step, metadata)
                except InferenceError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: _Result = end.value
            return result

    async def _ask(self, step: Ask, metadata: Mapping[str, str] | None) -> Any:
        sent = self._connection.call_metadata(metadata)
        try:
            return await self._methods[step.method](step.request, timeout=step.timeout, metadata=sent)
        except grpc.RpcError as error:
            raise of_rpc(error) from error
        except grpc.aio.UsageError as error:  # gRPC's word for a channel that was closed
            raise of_status("CANCELLED", str(error)) from error


class AsyncStream:
    """Requests and their answers over one call, in the same order; either `send` and `receive`, or `answers`.

    Args:
        call: begins the call with an iterator of requests.
        question: what every request asks.
        info: what the model takes; None to send arrays as they are.
    """

    def __init__(self, call: Callable[..., Any], question: Question, info: ModelInfo | None) -> None:
        self._question = question
        self._info = info
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._call = call(_until_end(self._requests))

    def send(self, inputs: Inputs) -> None:
        """Send a request; its answer is the one after those of the requests before.

        Raises:
            InputError: the inputs do not fit the model; nothing was sent.
        """
        self._requests.put_nowait(self._request(inputs))

    async def receive(self) -> Answer:
        """The answer to the oldest request that has none yet.

        Raises:
            InferenceError: that request got none. With the code UNKNOWN the stream goes on, else it is over.
        """
        try:
            reply = await self._call.read()
        except grpc.RpcError as error:
            raise of_rpc(error) from error
        if reply is grpc.aio.EOF:
            raise of_status("CANCELLED", "the stream has ended")
        return streamed_answer_of(reply)

    async def answers(self, batches: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Answer]:
        """The answers to `batches`, which are drawn and sent ahead while answers come.

        Raises:
            InputError, InferenceError: one of them got none; the stream is closed then.
        """
        sent: asyncio.Queue[Exception | object] = asyncio.Queue(SENT_AHEAD)
        feeder = asyncio.create_task(self._feed(batches, sent))
        done = False
        try:
            while (ticket := await sent.get()) is not _END:
                if isinstance(ticket, Exception):
                    raise ticket
                yield await self.receive()
            done = True
        finally:
            feeder.cancel()
            if not done:
                self.close()

    def close(self) -> None:
        """End the call; answers that are still to come are lost."""
        self._requests.put_nowait(_END)
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, inputs: Inputs) -> ModelInferRequest:
        return to_request(self._question, inputs, self._info)

    async def _feed(
        self, batches: Iterable[Inputs] | AsyncIterable[Inputs], sent: asyncio.Queue[Any]
    ) -> None:
        end: Exception | object = _END
        try:
            async for batch in _drawn(batches):
                self.send(batch)
                await sent.put(None)  # waits while too many are under way
        except Exception as error:  # noqa: BLE001 - it is raised where the answers are read
            end = error
        await sent.put(end)


async def _drawn(batches: Iterable[Inputs] | AsyncIterable[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch


async def _until_end(requests: asyncio.Queue[Any]) -> AsyncIterator[ModelInferRequest]:
    while (request := await requests.get()) is not _END:
        yield request


def _serialise(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _channel(connection: Connection) -> grpc.aio.Channel:
    options = connection.channel_options()
    if connection.tls is None:
        return grpc.aio.insecure_channel(connection.address, options)
    return grpc.aio.secure_channel(connection.address, connection.tls.credentials(), options)
