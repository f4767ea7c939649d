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
from protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse


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
        return answer(self._executor, offering, feeds, names, write, call, began)
