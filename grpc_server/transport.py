"""The transport: grpc.aio around the endpoints. It knows bytes, statuses and sockets, and no tensor.

A model runs inline on the event loop: measured, a run takes microseconds, and handing it to a thread halves
the requests per second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from grpc_server import status_details, streaming
from grpc_server.endpoint import SERVICE, Endpoint
from grpc_server.errors import (
    ControlRefusedError,
    DeadlineExceededError,
    InternalFaultError,
    InvalidRequestError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    UnsupportedError,
)
from grpc_server.health import HealthService
from grpc_server.provenance import Provenance
from grpc_server.streaming import OrderedStream, StreamAnswers
from protos import grpc_service_pb2
from registry.errors import UsageError

QUIET_SECONDS = 0.05

_Context = grpc.aio.ServicerContext[bytes, bytes]

_STATUSES: dict[type[RequestError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotServedError: grpc.StatusCode.NOT_FOUND,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    ControlRefusedError: grpc.StatusCode.UNAVAILABLE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    InternalFaultError: grpc.StatusCode.INTERNAL,
}


class GrpcTransport:
    """A grpc.aio server on one address.

    Args:
        endpoints: the RPCs.
        health: the health service.
        max_message_bytes: the largest message taken or sent.
    """

    def __init__(
        self, endpoints: Iterable[Endpoint[Any]], health: HealthService, *, max_message_bytes: int
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # else a second server on the same port takes half of the connections and nobody notices
                ("grpc.so_reuseport", 0),
            ]
        )
        self._requests = _Requests()
        self._streams: set[OrderedStream] = set()
        self._server.add_generic_rpc_handlers((self._handler({rpc.name: rpc for rpc in endpoints}),))
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        _enable_reflection(self._server)

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port; 0 lets the system choose one.

        Raises:
            UsageError: the address cannot be listened on.
        """
        try:
            bound = self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise UsageError(
                f"cannot listen on {host}:{port}: the port is in use or the address is not this machine's; "
                "choose another with --port or --host"
            )
        await self._server.start()
        return bound

    async def quiet(self, longest: float) -> None:
        """Return as soon as no request came for a moment, or after `longest` seconds."""
        deadline = time.monotonic() + longest
        seen = -1
        while self._requests.count != seen and time.monotonic() < deadline:
            seen = self._requests.count
            await asyncio.sleep(QUIET_SECONDS)

    async def stop(self, grace: float) -> None:
        """Take no more requests, and wait up to `grace` seconds for those that are under way."""
        stopped = asyncio.ensure_future(self._server.stop(grace))
        for stream in list(self._streams):
            stream.finish()
        await stopped

    def _handler(self, endpoints: Mapping[str, Endpoint[Any]]) -> grpc.GenericRpcHandler:
        stream = _stream_behaviour(StreamAnswers(endpoints["ModelInfer"]), self._requests, self._streams)
        unary: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(_behaviour(endpoint, self._requests))
            for name, endpoint in endpoints.items()
        }
        return grpc.method_handlers_generic_handler(
            SERVICE, {**unary, streaming.NAME: grpc.stream_stream_rpc_method_handler(stream)}
        )


@dataclass(slots=True)
class _Requests:
    count: int = 0


def _behaviour(endpoint: Endpoint[Any], requests: _Requests) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def serve(data: bytes, context: _Context) -> bytes:
        requests.count += 1
        try:
            answer = endpoint(data, _GrpcCall(context))
            return answer if isinstance(answer, bytes) else await answer
        except RequestError as error:
            return await _abort(context, error)

    return serve


def _stream_behaviour(
    answers: StreamAnswers, requests: _Requests, streams: set[OrderedStream]
) -> Callable[[Any, _Context], Awaitable[None]]:
    async def serve(_requests: Any, context: _Context) -> None:
        call = _StreamCall(context)

        def answer(data: bytes) -> bytes | Awaitable[bytes]:
            requests.count += 1
            return answers(data, call)

        stream = OrderedStream(answer, context.read, context.write, grpc.aio.EOF)
        streams.add(stream)
        try:
            await stream.run()
        finally:
            streams.discard(stream)
        if stream.cut_short:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the server is stopping; what it had read is answered"
            )

    return serve


class _GrpcCall:
    """A call as grpc.aio knows it."""

    __slots__ = ("_context",)

    def __init__(self, context: _Context) -> None:
        self._context = context

    def seconds_left(self) -> float | None:
        left: float | None = self._context.time_remaining()
        return left

    def answered_by(self, provenance: Provenance) -> None:
        self._context.set_trailing_metadata(provenance.metadata())


class _StreamCall(_GrpcCall):
    """A stream as grpc.aio knows it; its one set of trailing metadata cannot tell of every answer."""

    __slots__ = ()

    def answered_by(self, provenance: Provenance) -> None:
        pass


async def _abort(context: _Context, error: RequestError) -> NoReturn:
    status = _STATUSES[type(error)]
    details: tuple[tuple[str, bytes], ...] = ()
    if isinstance(error, OverloadedError):
        rich = status_details.with_retry_info(status.value[0], str(error), error.retry_after)
        details = ((status_details.KEY, rich),)
    await context.abort(status, str(error), details)


def _enable_reflection(server: Any) -> None:
    # the inference protocol has a pool of its own (see `protos`), and reflection looks into one pool only
    pool = DescriptorPool()
    for module in (grpc_service_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((SERVICE, health, reflection.SERVICE_NAME), server, pool=pool)
