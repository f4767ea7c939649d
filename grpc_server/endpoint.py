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
from google.protobuf.message import DecodeError, Message

from grpc_server.call import UNBOUNDED, Call
from grpc_server.errors import InternalFaultError, InvalidRequestError, RequestError
from grpc_server.handlers import InferenceHandlers
from grpc_server.models import Models
from grpc_server.shortcut import PlainShortcut
from protos import grpc_service_pb2 as pb

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

    def __init__(self, handlers: InferenceHandlers, shortcut: PlainShortcut) -> None:
        super().__init__("ModelInfer", pb.ModelInferRequest, handlers.model_infer)
        self._shortcut = shortcut

    def _answer(self, data: bytes, call: Call) -> bytes | Awaitable[bytes]:
        reply = self._shortcut.answer(data, call)
        if reply is not None:
            return reply
        request = self._parse(data)
        answer = _serialised(self._handle(request, call))
        if isinstance(answer, bytes):  # what must be awaited is not plain
            self._shortcut.learn(data, request)
        return answer


def endpoints(models: Models) -> tuple[InferenceHandlers, list[Endpoint[Any]]]:
    """The handlers for `models`, and the endpoints of all RPCs of the service."""
    handlers = InferenceHandlers(models)
    return handlers, _endpoints(handlers, PlainShortcut(models))


def _endpoints(handlers: InferenceHandlers, shortcut: PlainShortcut) -> list[Endpoint[Any]]:
    return [
        Endpoint("ServerLive", pb.ServerLiveRequest, at_once(handlers.server_live)),
        Endpoint("ServerReady", pb.ServerReadyRequest, at_once(handlers.server_ready)),
        Endpoint("ModelReady", pb.ModelReadyRequest, at_once(handlers.model_ready)),
        Endpoint("ServerMetadata", pb.ServerMetadataRequest, at_once(handlers.server_metadata)),
        Endpoint("ModelMetadata", pb.ModelMetadataRequest, at_once(handlers.model_metadata)),
        InferEndpoint(handlers, shortcut),
    ]


def at_once(handle: Callable[[_Request], Message]) -> Handle[_Request]:
    """A handler for a question whose answer is known, whatever the call."""
    return lambda request, _call: handle(request)


def _serialised(answer: Message | Awaitable[Message]) -> bytes | Awaitable[bytes]:
    if isinstance(answer, Message):
        return answer.SerializeToString()
    return _serialised_later(answer)


async def _serialised_later(answer: Awaitable[Message]) -> bytes:
    return (await answer).SerializeToString()
