"""The transport: grpc.aio around the endpoints. It knows bytes, statuses and sockets, and no tensor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from grpc_server import streaming
from grpc_server.admission import Admission, Collector, recheck_regularly
from grpc_server.behaviours import CallsUnderWay, stream_behaviour, unary_behaviour
from grpc_server.endpoint import SERVICE, Endpoint
from grpc_server.health import HealthService
from grpc_server.observation.record import Observer
from grpc_server.observing import Observing
from grpc_server.packing import CORE_OPTIONS, Unpacker
from grpc_server.security.setup import NO_SECURITY, Security
from grpc_server.security.tls import grpc_credentials
from grpc_server.streaming import StreamAnswers
from protos import grpc_service_pb2
from registry.errors import UsageError

LOOK_SECONDS = 0.05
"""Between two looks at whether calls are still under way."""
KEEPALIVE_MS = 60_000
"""A caller with calls under way that is silent for so long is pinged, and has a minute to answer."""
FLUSH_SECONDS = 0.25
"""After the last call's handler has returned: until its answer is out, and callers have heard of the end."""


class GrpcTransport:
    """A grpc.aio server on one address.

    Args:
        endpoints: the RPCs.
        health: the health service.
        max_message_bytes: the largest message taken or sent.
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
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                *CORE_OPTIONS,
                # else a second server on the same port takes half of the connections and nobody notices
                ("grpc.so_reuseport", int(share_port)),
                # a caller whose machine is gone would hold its streams for ever
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ]
        )
        self._calls = CallsUnderWay()
        self._unpacker = Unpacker(max_message_bytes)
        self._security = security
        self._rechecking: asyncio.Future[None] | None = None
        observing = Observing(observers, security.guard) if observers else None
        handlers = [
            self._handler({rpc.name: rpc for rpc in endpoints}, observing),
            *_others(health, security),
        ]
        if security.guard is not None:
            handlers = [Admission(handlers, security.guard, observers)]
        self._server.add_generic_rpc_handlers(tuple(handlers))

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port; 0 lets the system choose one.

        Raises:
            UsageError: the address cannot be listened on.
        """
        try:
            bound = self._bind(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise UsageError(
                f"cannot listen on {host}:{port}: the port is in use or the address is not this machine's; "
                "choose another with --port or --host"
            )
        await self._server.start()
        if self._security.guard is not None:
            rechecking = recheck_regularly(self._security.guard, self._calls.streams)
            self._rechecking = asyncio.ensure_future(rechecking)
        return bound

    @property
    def came(self) -> int:
        """Requests so far."""
        return self._calls.came

    async def stop(self, grace: float) -> None:
        """Take no more requests, and wait up to `grace` seconds for those that are under way.

        gRPC would wait for idle connections too, for as long as their clients do not look at them: a blocking
        client that asks nothing does not, nor does one whose machine is gone.
        """
        deadline = time.monotonic() + grace
        stopped = asyncio.ensure_future(self._server.stop(grace))
        for each in list(self._calls.streams):
            each.stream.finish()
        while not self._calls.none and not stopped.done():
            await asyncio.wait((stopped,), timeout=LOOK_SECONDS)
        flush = max(0.0, min(FLUSH_SECONDS, deadline - time.monotonic()))
        if not (await asyncio.wait((stopped,), timeout=flush))[0]:
            await self._server.stop(None)
        await stopped
        if self._rechecking is not None:
            self._rechecking.cancel()

    def _bind(self, address: str) -> int:
        certificates = self._security.certificates
        if certificates is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, grpc_credentials(lambda: certificates.value))

    def _handler(
        self, endpoints: Mapping[str, Endpoint[Any]], observing: Observing | None
    ) -> grpc.GenericRpcHandler:
        unary = {
            name: unary_behaviour(endpoint, self._calls, self._unpacker)
            for name, endpoint in endpoints.items()
        }
        answers = StreamAnswers(endpoints["ModelInfer"])
        stream = stream_behaviour(answers, self._calls, self._unpacker)
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
