"""ModelInfer: a message in, a message out, at once or awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from time import perf_counter_ns

from ferryline.grpc_server.answering import answer, count_failure
from ferryline.grpc_server.call import UNBOUNDED, Call
from ferryline.grpc_server.contract import read_feeds, read_requested
from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.models import FollowedModel, Models
from ferryline.grpc_server.offering import Offering
from ferryline.grpc_server.provenance import Provenance
from ferryline.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

TIMEOUT = "timeout"
"""Triton's parameter for the longest wait in the queue, in microseconds."""

AT_ONCE_BYTES = 2**18
"""Bytes of text or typed contents that are read on the event loop; more than these go to a thread."""

_Inputs = tuple[dict[str, Array], Sequence[str]]


class InferenceHandler:
    """Answers ModelInfer for `models`.

    Args:
        models: what is served.
        executor: runs it.
    """

    def __init__(self, models: Models, executor: Executor) -> None:
        self._models = models
        self._executor = executor

    def __call__(
        self, request: ModelInferRequest, call: Call = UNBOUNDED
    ) -> ModelInferResponse | Awaitable[ModelInferResponse]:
        """Run a model, or say what to await for its answer.

        Raises:
            RequestError: the request does not fit, the model or version cannot be asked, or there is no room
                or no time for it. What is awaited raises the same.
        """
        began = perf_counter_ns()
        model = self._models.get(request.model_name)
        offering = model.take(request.model_version, request.id)
        if takes_long_to_read(request):
            return self._later(request, model, offering, call, began)
        try:
            read = _read(request, offering)
        except BaseException as error:
            count_failure(offering, began, error)
            raise
        return self._answer(request, model, offering, read, call, began)

    async def _later(
        self, request: ModelInferRequest, model: FollowedModel, offering: Offering, call: Call, began: int
    ) -> ModelInferResponse:
        try:
            read = await asyncio.to_thread(_read, request, offering)
        except BaseException as error:
            count_failure(offering, began, error)
            raise
        reply = self._answer(request, model, offering, read, call, began)
        return reply if isinstance(reply, ModelInferResponse) else await reply

    def _answer(
        self,
        request: ModelInferRequest,
        model: FollowedModel,
        offering: Offering,
        read: _Inputs,
        call: Call,
        began: int,
    ) -> ModelInferResponse | Awaitable[ModelInferResponse]:
        feeds, names = read
        write = partial(offering.writer.write, request)
        if request.parameters:
            call = _hurried(call, request)
        shadow = model.shadow
        sample = None if shadow is None or request.model_version else shadow.sample(offering, feeds)
        return answer(self._executor, offering, feeds, names, write, call, began, sample)


def takes_long_to_read(request: ModelInferRequest) -> bool:
    """Whether the request has so many elements to be read one by one that the event loop must not do it."""
    if request.raw_input_contents:
        pairs = zip(request.inputs, request.raw_input_contents, strict=False)
        return any(tensor.datatype == "BYTES" and len(raw) > AT_ONCE_BYTES for tensor, raw in pairs)
    return any(tensor.contents.ByteSize() > AT_ONCE_BYTES for tensor in request.inputs)


def _read(request: ModelInferRequest, offering: Offering) -> _Inputs:
    feeds = read_feeds(request, offering.inputs)
    return feeds, read_requested(request, offering.outputs) if request.outputs else offering.outputs


def _hurried(call: Call, request: ModelInferRequest) -> Call:
    microseconds = request.parameters[TIMEOUT].int64_param if TIMEOUT in request.parameters else 0
    return _Hurried(call, microseconds / 1e6) if microseconds > 0 else call


class _Hurried:
    """A call that says in the request itself how long it waits for its run."""

    def __init__(self, call: Call, seconds: float) -> None:
        self._call = call
        self._seconds = seconds

    def seconds_left(self) -> float | None:
        left = self._call.seconds_left()
        return self._seconds if left is None else min(left, self._seconds)

    def answered_by(self, provenance: Provenance) -> None:
        self._call.answered_by(provenance)
