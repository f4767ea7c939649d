"""ModelInfer: a message in, a message out, at once or awaited."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from time import perf_counter_ns

from grpc_server.answering import answer, count_failure
from grpc_server.call import UNBOUNDED, Call
from grpc_server.contract import read_feeds, read_requested
from grpc_server.execution.executor import Executor
from grpc_server.models import Models
from grpc_server.provenance import Provenance
from protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

TIMEOUT = "timeout"
"""Triton's parameter for the longest wait in the queue, in microseconds."""


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
        offering = self._models.get(request.model_name).take(request.model_version, request.id)
        try:
            feeds = read_feeds(request, offering.inputs)
            names = read_requested(request, offering.outputs) if request.outputs else offering.outputs
        except BaseException as error:
            count_failure(offering, began, error)
            raise
        write = partial(offering.writer.write, request)
        if request.parameters:
            call = _hurried(call, request)
        return answer(self._executor, offering, feeds, names, write, call, began)


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
