"""What a client does, as steps for whoever can do them: the blocking client and the asyncio one.

A conversation is a generator: it yields what to ask or how long to pause, is sent the reply, and returns
what the caller gets. So retries, the kept metadata and the checks are written once, and are tested without a
socket.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from ferryline.grpc_server.client.contract import Inputs, ModelInfo, as_arrays, fitted
from ferryline.grpc_server.client.errors import InferenceError, InputError, RequestRefusedError, TimedOutError
from ferryline.grpc_server.client.messages import Answer, Question, answer_of, request_of
from ferryline.grpc_server.client.options import Retry
from ferryline.protos import grpc_service_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
STREAM = "ModelStreamInfer"

REPLIES: dict[str, type[Message]] = {
    "ServerLive": pb.ServerLiveResponse,
    "ServerReady": pb.ServerReadyResponse,
    "ModelReady": pb.ModelReadyResponse,
    "ModelMetadata": pb.ModelMetadataResponse,
    "ModelInfer": pb.ModelInferResponse,
}
"""What the methods that are asked answer with."""

KEPT_MODELS = 256
READY_POLL = 0.1

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Ask:
    """Call a method; its reply is sent in, an `InferenceError` thrown in where there is none."""

    method: str
    request: Message
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


Steps = Generator[Ask | Pause, Any, _Result]


class Deadline:
    """When a call must be over.

    Args:
        seconds: from now; None for never.
        clock: gives the seconds since some moment.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds

    def left(self) -> float | None:
        """Seconds; None for no end to them."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    def allows(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        left = self.left()
        return left is None or seconds < left


class Conversations:
    """What both clients can do; one object may serve many threads.

    Args:
        retry: when a question is asked again.
        check_inputs: whether to ask what a model takes, once, and to make arrays fit it before they are sent.
        clock: gives the seconds since some moment.
    """

    def __init__(
        self, retry: Retry, *, check_inputs: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry = retry
        self._check_inputs = check_inputs
        self._clock = clock
        self._known: dict[tuple[str, str], ModelInfo] = {}

    def infer(self, question: Question, inputs: Inputs, timeout: float | None) -> Steps[Answer]:
        """Ask a model.

        What is kept of it may be older than a change of its contract, so before a refusal stands it is
        looked at anew.
        """
        deadline = self._deadline(timeout)
        info, fresh = yield from self._kept(question, deadline)
        try:
            return (yield from self._infer(question, inputs, info, deadline))
        except (InputError, RequestRefusedError):
            newer = None if fresh else (yield from self._learn(question.model, question.version, deadline))
            if newer is None or info is None or _same_contract(newer, info):
                raise
        return (yield from self._infer(question, inputs, newer, deadline))

    def model(self, name: str, version: str, timeout: float | None) -> Steps[ModelInfo]:
        """What a model takes and gives, as it is now."""
        return (yield from self._learn(name, version, self._deadline(timeout)))

    def live(self, timeout: float | None) -> Steps[bool]:
        """Whether the server answers at all."""
        try:
            reply = yield Ask("ServerLive", pb.ServerLiveRequest(), timeout)
        except InferenceError as error:
            return _no(error)
        return bool(reply.live)

    def ready(self, model: str, version: str, timeout: float | None) -> Steps[bool]:
        """Whether a model can be asked; whether every model of the server can, where none is named."""
        ask = Ask("ServerReady", pb.ServerReadyRequest(), timeout)
        if model:
            ask = Ask("ModelReady", pb.ModelReadyRequest(name=model, version=version), timeout)
        try:
            reply = yield ask
        except InferenceError as error:
            return _no(error)
        return bool(reply.ready)

    def wait_until_ready(self, model: str, version: str, timeout: float | None) -> Steps[None]:
        """Return once it is ready.

        Raises:
            TimedOutError: it did not become so.
        """
        deadline = self._deadline(timeout)
        while not (yield from self.ready(model, version, deadline.left())):
            if not deadline.allows(READY_POLL):
                what = f"model {model!r}" if model else "the server"
                raise TimedOutError("DEADLINE_EXCEEDED", f"{what} was not ready within {timeout} s")
            yield Pause(READY_POLL)

    def stream(self, question: Question, timeout: float | None) -> Steps[ModelInfo | None]:
        """What a stream needs to know before it begins."""
        info, _ = yield from self._kept(question, self._deadline(timeout))
        return info

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(timeout, self._clock)

    def _kept(self, question: Question, deadline: Deadline) -> Steps[tuple[ModelInfo | None, bool]]:
        """What is known of a model, and whether it was asked for just now."""
        if not self._check_inputs:
            return None, True
        info = self._known.get((question.model, question.version))
        if info is not None:
            return info, False
        return (yield from self._learn(question.model, question.version, deadline)), True

    def _learn(self, name: str, version: str, deadline: Deadline) -> Steps[ModelInfo]:
        request = pb.ModelMetadataRequest(name=name, version=version)
        info = ModelInfo.of((yield from self._ask("ModelMetadata", request, deadline)))
        if len(self._known) >= KEPT_MODELS:
            self._known = {}
        self._known[name, version] = info
        return info

    def _infer(
        self, question: Question, inputs: Inputs, info: ModelInfo | None, deadline: Deadline
    ) -> Steps[Answer]:
        request = to_request(question, inputs, info)
        return answer_of((yield from self._ask("ModelInfer", request, deadline)))

    def _ask(self, method: str, request: Message, deadline: Deadline) -> Steps[Any]:
        attempt = 1
        while True:
            try:
                return (yield Ask(method, request, deadline.left()))
            except InferenceError as error:
                wait = self._retry.wait_after(attempt, error)
                if wait is None or not deadline.allows(wait):
                    raise
            yield Pause(wait)
            attempt += 1


def to_request(question: Question, inputs: Inputs, info: ModelInfo | None) -> pb.ModelInferRequest:
    """The message for one question.

    Raises:
        InputError: the inputs do not fit.
    """
    arrays = as_arrays(inputs) if info is None else fitted(info, inputs)
    if info is not None:
        for output in question.outputs:
            if output not in info.outputs:
                raise InputError(
                    f"no output {output!r}; model {info.name!r} gives {', '.join(map(repr, info.outputs))}"
                )
    return request_of(question, arrays)


def _same_contract(one: ModelInfo, other: ModelInfo) -> bool:
    return (one.inputs, one.outputs) == (other.inputs, other.outputs)


def _no(error: InferenceError) -> bool:
    """Not there is an answer to whether it is there; anything else is not."""
    if error.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        return False
    raise error
