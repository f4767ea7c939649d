"""Bytes in, bytes or an error out: where a transport meets the handlers.

An answer is there at once or is awaited: most are computed in microseconds on the event loop, and a coroutine
for each of them would cost more than the answer.

A native front end can take the hot path here, as `shortcut` does in Python, and hand everything else to these
same endpoints.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from ferryline.grpc_server import unserved
from ferryline.grpc_server.call import UNBOUNDED, Call
from ferryline.grpc_server.control import FixedModels, ModelControl
from ferryline.grpc_server.errors import InternalFaultError, InvalidRequestError, RequestError
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.execution.policy import ExecutionPolicy
from ferryline.grpc_server.handlers import MAX_MESSAGE_BYTES, InferenceHandlers
from ferryline.grpc_server.inference import InferenceHandler
from ferryline.grpc_server.model_statistics import Totals
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.repository import RepositoryHandlers
from ferryline.grpc_server.shortcut import PlainShortcut
from ferryline.protos import grpc_service_pb2 as pb

SERVICE = "inference.GRPCInferenceService"

log = structlog.get_logger(__name__)

_Request = TypeVar("_Request", bound=Message)

Handle = Callable[[_Request, Call], Message | Awaitable[Message]]
"""Answers a message; `RequestError` where there is no answer."""


class Endpoint(Generic[_Request]):
    """One RPC.

    Args:
        name: the RPC's name in the protocol.
        request_type: the message its callers send.
        handle: gives the answer, or an awaitable of it.
    """

    def __init__(self, name: str, request_type: type[_Request], handle: Handle[_Request]) -> None:
        self.name = name
        self._parse = request_type.FromString
        self._handle = handle

    def __call__(self, data: bytes, call: Call = UNBOUNDED) -> bytes | Awaitable[bytes]:
        """Answer one request, or say what to await for the answer.

        Raises:
            RequestError: there is no answer; a fault of the server's own is an `InternalFaultError`. What is
                awaited raises the same.
        """
        try:
            answer = self._answer(data, call)
        except Exception as error:
            raise self._meaning(error) from error
        return answer if isinstance(answer, bytes) else self._awaited(answer)

    async def ask(self, request: _Request, call: Call = UNBOUNDED) -> Message:
        """Answer one request that is a message already, for a transport that writes it in another way.

        Raises:
            RequestError: as above.
        """
        try:
            answer = self._handle(request, call)
            return answer if isinstance(answer, Message) else await answer
        except Exception as error:
            raise self._meaning(error) from error

    def _answer(self, data: bytes, call: Call) -> bytes | Awaitable[bytes]:
        return _serialised(self._handle(self._parse(data), call))

    async def _awaited(self, answer: Awaitable[bytes]) -> bytes:
        try:
            return await answer
        except Exception as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> RequestError:
        if isinstance(error, RequestError):
            return error
        if isinstance(error, DecodeError):
            return InvalidRequestError(f"the bytes are no message of {SERVICE}/{self.name}")
        fault_id = uuid.uuid4().hex[:12]
        log.error("a request failed by the server's fault", id=fault_id, rpc=self.name, exc_info=error)
        return InternalFaultError(fault_id)


class InferEndpoint(Endpoint[pb.ModelInferRequest]):
    """ModelInfer, with the short way for plain requests before the handlers' long one."""

    def __init__(self, models: Models, executor: Executor) -> None:
        super().__init__("ModelInfer", pb.ModelInferRequest, InferenceHandler(models, executor))
        self._shortcut = PlainShortcut(models, executor)

    def _answer(self, data: bytes, call: Call) -> bytes | Awaitable[bytes]:
        reply = self._shortcut.answer(data, call)
        if reply is not None:
            return reply
        request = self._parse(data)
        answer = _serialised(self._handle(request, call))
        self._shortcut.learn(data, request)  # it was read and has a run
        return answer


def endpoints(
    models: Models,
    control: ModelControl | None = None,
    *,
    executor: Executor | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    totals: Totals | None = None,
) -> tuple[InferenceHandlers, list[Endpoint[Any]]]:
    """The handlers for `models`, and the endpoints of all RPCs of the service but the stream.

    Args:
        models: what is served.
        control: who decides on that; nobody where there is none.
        executor: runs the models; one with the defaults where there is none.
        max_message_bytes: the largest message of the transports.
        totals: gives what all processes of this server have counted; None where this one is all.
    """
    executor = executor or Executor(ExecutionPolicy())
    handlers = InferenceHandlers(
        models, batching_of=executor.batching_of, max_message_bytes=max_message_bytes
    )
    repository = RepositoryHandlers(models, control or FixedModels())
    return handlers, [
        *_core(handlers),
        InferEndpoint(models, executor),
        *_extensions(handlers, repository, totals),
        *_shared_memory(),
    ]


def _core(handlers: InferenceHandlers) -> list[Endpoint[Any]]:
    return [
        Endpoint("ServerLive", pb.ServerLiveRequest, at_once(handlers.server_live)),
        Endpoint("ServerReady", pb.ServerReadyRequest, at_once(handlers.server_ready)),
        Endpoint("ModelReady", pb.ModelReadyRequest, at_once(handlers.model_ready)),
        Endpoint("ServerMetadata", pb.ServerMetadataRequest, at_once(handlers.server_metadata)),
        Endpoint("ModelMetadata", pb.ModelMetadataRequest, at_once(handlers.model_metadata)),
    ]


def _extensions(
    handlers: InferenceHandlers, repository: RepositoryHandlers, totals: Totals | None
) -> list[Endpoint[Any]]:
    return [
        Endpoint("ModelConfig", pb.ModelConfigRequest, at_once(handlers.model_config)),
        Endpoint("ModelStatistics", pb.ModelStatisticsRequest, _statistics(handlers, totals)),
        Endpoint("RepositoryIndex", pb.RepositoryIndexRequest, at_once(repository.index)),
        Endpoint("RepositoryModelLoad", pb.RepositoryModelLoadRequest, repository.load),
        Endpoint("RepositoryModelUnload", pb.RepositoryModelUnloadRequest, repository.unload),
        Endpoint("TraceSetting", pb.TraceSettingRequest, at_once(unserved.trace_setting)),
        Endpoint("LogSettings", pb.LogSettingsRequest, at_once(unserved.log_settings)),
    ]


def _statistics(handlers: InferenceHandlers, totals: Totals | None) -> Handle[pb.ModelStatisticsRequest]:
    if totals is None:
        return at_once(handlers.model_statistics)
    ask = totals

    async def answer(request: pb.ModelStatisticsRequest, _call: Call) -> Message:
        return handlers.model_statistics(request, await ask())

    return answer


def _shared_memory() -> list[Endpoint[Any]]:
    refuse = at_once(unserved.shared_memory)
    return [Endpoint(name, Empty, refuse) for name in unserved.SHARED_MEMORY]


def at_once(handle: Callable[[_Request], Message]) -> Handle[_Request]:
    """A handler for a question whose answer is known, whatever the call."""
    return lambda request, _call: handle(request)


def _serialised(answer: Message | Awaitable[Message]) -> bytes | Awaitable[bytes]:
    if isinstance(answer, Message):
        return answer.SerializeToString()
    return _serialised_later(answer)


async def _serialised_later(answer: Awaitable[Message]) -> bytes:
    return (await answer).SerializeToString()
