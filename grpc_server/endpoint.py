"""Bytes in, bytes or an error out: where a transport meets the handlers.

A native front end can take the hot path here, as `shortcut` does in Python, and hand everything else to these
same endpoints.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from grpc_server.errors import InternalFaultError, InvalidRequestError, RequestError
from grpc_server.handlers import InferenceHandlers
from grpc_server.models import Models
from grpc_server.shortcut import PlainShortcut
from protos import grpc_service_pb2 as pb

SERVICE = "inference.GRPCInferenceService"

log = structlog.get_logger(__name__)

_Request = TypeVar("_Request", bound=Message)


class Endpoint(Generic[_Request]):
    """One RPC.

    Args:
        name: the RPC's name in the protocol.
        request_type: the message its callers send.
        handle: gives the answer.
    """

    def __init__(
        self, name: str, request_type: type[_Request], handle: Callable[[_Request], Message]
    ) -> None:
        self.name = name
        self._parse = request_type.FromString
        self._handle = handle

    def __call__(self, data: bytes) -> bytes:
        """Answer one request.

        Raises:
            RequestError: there is no answer; a fault of the server's own is an `InternalFaultError`.
        """
        try:
            return self._answer(data)
        except RequestError:
            raise
        except DecodeError as error:
            raise InvalidRequestError(f"the bytes are no message of {SERVICE}/{self.name}") from error
        except Exception as error:
            fault_id = uuid.uuid4().hex[:12]
            log.exception("a request failed by the server's fault", id=fault_id, rpc=self.name)
            raise InternalFaultError(fault_id) from error

    def _answer(self, data: bytes) -> bytes:
        return self._handle(self._parse(data)).SerializeToString()


class InferEndpoint(Endpoint[pb.ModelInferRequest]):
    """ModelInfer, with the short way for plain requests before the handlers' long one."""

    def __init__(self, handlers: InferenceHandlers, shortcut: PlainShortcut) -> None:
        super().__init__("ModelInfer", pb.ModelInferRequest, handlers.model_infer)
        self._shortcut = shortcut

    def _answer(self, data: bytes) -> bytes:
        reply = self._shortcut.answer(data)
        if reply is None:
            request = self._parse(data)
            reply = self._handle(request).SerializeToString()
            self._shortcut.learn(data, request)
        return reply


def endpoints(models: Models) -> tuple[InferenceHandlers, list[Endpoint[Any]]]:
    """The handlers for `models`, and the endpoints of all RPCs of the service."""
    handlers = InferenceHandlers(models)
    return handlers, _endpoints(handlers, PlainShortcut(models))


def _endpoints(handlers: InferenceHandlers, shortcut: PlainShortcut) -> list[Endpoint[Any]]:
    return [
        Endpoint("ServerLive", pb.ServerLiveRequest, handlers.server_live),
        Endpoint("ServerReady", pb.ServerReadyRequest, handlers.server_ready),
        Endpoint("ModelReady", pb.ModelReadyRequest, handlers.model_ready),
        Endpoint("ServerMetadata", pb.ServerMetadataRequest, handlers.server_metadata),
        Endpoint("ModelMetadata", pb.ModelMetadataRequest, handlers.model_metadata),
        InferEndpoint(handlers, shortcut),
    ]
