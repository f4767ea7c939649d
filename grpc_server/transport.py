"""The transport: HTTP/2 around the endpoints. It knows bytes, statuses and sockets, and no tensor."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from ferryline.grpc_server import streaming
from ferryline.grpc_server.admission import Admission, Collector, recheck_regularly
from ferryline.grpc_server.behaviours import CallsUnderWay, said, stream_behaviour, unary_behaviour
from ferryline.grpc_server.endpoint import SERVICE, Endpoint
from ferryline.grpc_server.health import HealthService
from ferryline.grpc_server.http2.listening import Calls, Http2Server
from ferryline.grpc_server.observation.record import Observer
from ferryline.grpc_server.observing import Observing
from ferryline.grpc_server.packing import Unpacker
from ferryline.grpc_server.security.guard import HEADER
from ferryline.grpc_server.security.setup import NO_SECURITY, Security
from ferryline.grpc_server.security.tls import ssl_context
from ferryline.grpc_server.streaming import StreamAnswers
from ferryline.protos import grpc_service_pb2
from ferryline.registry.errors import UsageError

HTTP_2 = "h2"


class GrpcTransport:
    """gRPC on one address.

    Args:
        endpoints: the RPCs.
        health: the health service.
        max_message_bytes: the largest message taken.
        security: who may call, over what.
        observers: who is told of calls.
        share_port: whether other processes listen on the same port.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint[Any]],
        health: HealthService,
        *,
        max_message_bytes: int,
        security: Security = NO_SECURITY,
        observers: Sequence[Observer] = (),
        share_port: bool = False,
    ) -> None:
        self._calls = CallsUnderWay()
        self._security = security
        self._share_port = share_port
        self._rechecking: asyncio.Future[None] | None = None
        unpacker = Unpacker(max_message_bytes)
        by_name = {rpc.name: rpc for rpc in endpoints}
        observing = Observing(observers, security.guard) if observers else None
        handlers = [self._handler(by_name, unpacker, observing), *_others(health, security)]
        guard = security.guard
        if guard is not None:
            handlers = [Admission(handlers, guard, observers)]
        calls = Calls(
            handlers,
            # what observers are told is gathered around a behaviour
            {} if observers else {f"/{SERVICE}/{name}": rpc for name, rpc in by_name.items()},
            aborted=said,
            unpacker=unpacker,
            max_message_bytes=max_message_bytes,
            admit=None if guard is None else guard.admit,
            admitted_by=HEADER,
        )
        self._server = Http2Server(calls)

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port; 0 lets the system choose one.

        Raises:
            UsageError: the address cannot be listened on.
        """
        try:
            bound = await self._server.start(
                host, port, share_port=self._share_port, context=self._ssl_context()
            )
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: the port is in use or the address is not this machine's "
                f"({error.strerror}); choose another with --port or --host"
            ) from error
        if self._security.guard is not None:
            rechecking = recheck_regularly(self._security.guard, self._calls.streams)
            self._rechecking = asyncio.ensure_future(rechecking)
        return bound

    @property
    def came(self) -> int:
        """Requests so far."""
        return self._calls.came + self._server.came

    async def stop(self, grace: float) -> None:
        """Take no more requests, and wait up to `grace` seconds for those that are under way."""
        for each in list(self._calls.streams):
            each.stream.finish()
        await self._server.stop(grace)
        if self._rechecking is not None:
            self._rechecking.cancel()

    def _ssl_context(self) -> ssl.SSLContext | None:
        certificates = self._security.certificates
        return None if certificates is None else ssl_context(lambda: certificates.value, HTTP_2)

    def _handler(
        self, endpoints: Mapping[str, Endpoint[Any]], unpacker: Unpacker, observing: Observing | None
    ) -> grpc.GenericRpcHandler:
        unary = {
            name: unary_behaviour(endpoint, self._calls, unpacker) for name, endpoint in endpoints.items()
        }
        answers = StreamAnswers(endpoints["ModelInfer"])
        stream = stream_behaviour(answers, self._calls, unpacker)
        if observing is not None:
            unary = {name: observing.unary(name, behaviour) for name, behaviour in unary.items()}
            stream = observing.stream(streaming.NAME, stream)
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(behaviour) for name, behaviour in unary.items()
        }
        handlers[streaming.NAME] = grpc.stream_stream_rpc_method_handler(stream)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _others(health: HealthService, security: Security) -> list[grpc.GenericRpcHandler]:
    collected: Any = Collector()
    add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    health_pb2_grpc.add_HealthServicer_to_server(health, collected)
    if security.reflection:
        add_reflection(_reflection(), collected)
    handlers: list[grpc.GenericRpcHandler] = collected.handlers
    return handlers


def _reflection() -> Any:
    # the inference protocol has a pool of its own (see `protos`), and reflection looks into one pool only
    pool = DescriptorPool()
    for module in (grpc_service_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    services = (SERVICE, health, reflection.SERVICE_NAME)
    return reflection.aio.ReflectionServicer(services, pool=pool)
