"""The client for threads."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from ferryline.grpc_server.client.contract import Inputs, ModelInfo
from ferryline.grpc_server.client.errors import InferenceError, of_rpc, of_status
from ferryline.grpc_server.client.messages import Answer, Parameters, Question, streamed_answer_of
from ferryline.grpc_server.client.options import Connection, Retry, Tls, Token
from ferryline.grpc_server.client.steps import REPLIES, SERVICE, STREAM, Ask, Conversations, Steps, to_request
from ferryline.protos.grpc_service_pb2 import ModelInferRequest, ModelStreamInferResponse

SENT_AHEAD = 32
"""Requests of `Stream.answers` that are under way at once."""

_END = object()

_Result = TypeVar("_Result")


class Client:
    """Asks a server of the Open Inference Protocol, over one channel that stays open.

    Safe to use from many threads; to be made anew after a fork.

    Args:
        address: `host:port`, or anything gRPC can resolve.
        timeout: seconds that a call and its retries may take together; None for no end.
        retry: when a question is asked again; `NO_RETRY` for never.
        tls: None for plaintext.
        token: a bearer token, or what gives the one of the moment.
        metadata: sent with every call.
        check_inputs: ask once what a model takes, make arrays fit it and refuse others before they are sent.
            Without, inputs go by name and exactly as they are, and nothing is asked but the question.
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

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | str = "",
        outputs: Sequence[str] = (),
        request_id: str = "",
        parameters: Parameters | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Run a model.

        Args:
            model: the model's name.
            inputs: an array for each of its inputs by name, or the array alone where it has one.
            version: a version or a channel that must answer; whatever serves where it is empty.
            outputs: the outputs to give; all where there are none.
            request_id: given back with the answer.
            parameters: of the request.
            metadata: sent beside it.
            timeout: instead of the client's.

        Raises:
            InputError: the inputs do not fit the model; nothing was sent.
            InferenceError: there was no answer.
        """
        question = Question(model, str(version), outputs, request_id, parameters or {})
        steps = self._conversations.infer(question, inputs, self._seconds(timeout))
        return self._do(steps, metadata)

    def stream(
        self,
        model: str,
        *,
        version: int | str = "",
        outputs: Sequence[str] = (),
        parameters: Parameters | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Stream:
        """A stream of requests to a model over one call, which costs less for each than calls of their own.

        It has no timeout, and nothing of it is retried.

        Raises:
            InferenceError: the server does not say what the model takes.
        """
        question = Question(model, str(version), outputs, "", parameters or {})
        info = self._do(self._conversations.stream(question, self._timeout), metadata)
        method = self._channel.stream_stream(
            f"/{SERVICE}/{STREAM}",
            request_serializer=_serialise,
            response_deserializer=ModelStreamInferResponse.FromString,
        )
        return Stream(partial(method, metadata=self._connection.call_metadata(metadata)), question, info)

    def model(self, name: str, version: int | str = "", *, timeout: float | None = None) -> ModelInfo:
        """What a model takes and gives.

        Raises:
            InferenceError: there was no answer.
        """
        return self._do(self._conversations.model(name, str(version), self._seconds(timeout)))

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether a server answers there."""
        return self._do(self._conversations.live(self._seconds(timeout)))

    def ready(self, model: str = "", version: int | str = "", *, timeout: float | None = None) -> bool:
        """Whether a model can be asked; whether all models of the server can, where none is named."""
        return self._do(self._conversations.ready(model, str(version), self._seconds(timeout)))

    def wait_until_ready(self, model: str = "", version: int | str = "", *, timeout: float = 30.0) -> None:
        """Return once it is ready.

        Raises:
            TimedOutError: it did not become so within `timeout` seconds.
        """
        self._do(self._conversations.wait_until_ready(model, str(version), timeout))

    def close(self) -> None:
        """Close the channel; calls under way end with CANCELLED."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout

    def _do(self, steps: Steps[_Result], metadata: Mapping[str, str] | None = None) -> _Result:
        try:
            step = next(steps)
            while True:
                if not isinstance(step, Ask):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    reply = self._ask(step, metadata)
                except InferenceError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            result: _Result = end.value
            return result

    def _ask(self, step: Ask, metadata: Mapping[str, str] | None) -> Any:
        sent = self._connection.call_metadata(metadata)
        try:
            return self._methods[step.method](step.request, timeout=step.timeout, metadata=sent)
        except grpc.RpcError as error:
            raise of_rpc(error) from error
        except ValueError as error:  # gRPC's word for a channel that was closed
            raise of_status("CANCELLED", str(error)) from error


class Stream:
    """Requests and their answers over one call, in the same order.

    Either `send` and `receive`, or `answers`. For one thread; `send` and `receive` may have one each.

    Args:
        call: begins the call with an iterator of requests.
        question: what every request asks.
        info: what the model takes; None to send arrays as they are.
    """

    def __init__(self, call: Callable[..., Any], question: Question, info: ModelInfo | None) -> None:
        self._question = question
        self._info = info
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = call(iter(self._requests.get, _END))

    def send(self, inputs: Inputs) -> None:
        """Send a request; its answer is the one after those of the requests before.

        Raises:
            InputError: the inputs do not fit the model; nothing was sent.
        """
        self._requests.put(self._request(inputs))

    def receive(self) -> Answer:
        """The answer to the oldest request that has none yet; waits for it.

        Raises:
            InferenceError: that request got none. With the code UNKNOWN the stream goes on, else it is over.
        """
        try:
            reply = next(self._call)
        except grpc.RpcError as error:
            raise of_rpc(error) from error
        except StopIteration:
            raise of_status("CANCELLED", "the stream has ended") from None
        return streamed_answer_of(reply)

    def answers(self, batches: Iterable[Inputs]) -> Iterator[Answer]:
        """The answers to `batches`, which are drawn on a thread and sent ahead.

        Raises:
            InputError, InferenceError: one of them got none; the stream is closed then.
        """
        sent: queue.Queue[Exception | object] = queue.Queue(SENT_AHEAD)
        stopping = threading.Event()
        feeder = threading.Thread(target=self._feed, args=(batches, sent, stopping), daemon=True)
        feeder.start()
        done = False
        try:
            while (ticket := sent.get()) is not _END:
                if isinstance(ticket, Exception):
                    raise ticket
                yield self.receive()
            done = True
        finally:
            stopping.set()
            if not done:
                self.close()
                _empty(sent)

    def close(self) -> None:
        """End the call; answers that are still to come are lost."""
        self._requests.put(_END)
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, inputs: Inputs) -> ModelInferRequest:
        return to_request(self._question, inputs, self._info)

    def _feed(self, batches: Iterable[Inputs], sent: queue.Queue[Any], stopping: threading.Event) -> None:
        end: Exception | object = _END
        try:
            for batch in batches:
                self.send(batch)
                sent.put(None)  # waits while too many are under way
                if stopping.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - it is raised where the answers are read
            end = error
        sent.put(end)


def _empty(sent: queue.Queue[Any]) -> None:
    with suppress(queue.Empty):
        for _ in itertools.repeat(None):
            sent.get_nowait()


def _serialise(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _channel(connection: Connection) -> grpc.Channel:
    options = connection.channel_options()
    if connection.tls is None:
        return grpc.insecure_channel(connection.address, options)
    return grpc.secure_channel(connection.address, connection.tls.credentials(), options)
