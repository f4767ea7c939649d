"""A span for each call, by OpenTelemetry (the extra `otel`).

Where spans go, how many and under which name is for the variables that every program with OpenTelemetry
knows: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and so on.
"""

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from typing import Any

from ferryline.grpc_server.endpoint import SERVICE
from ferryline.grpc_server.observation.record import GRPC, CallRecord
from ferryline.registry.extras import Extra, require_extra

_NS = 1_000_000_000
NAME = "ferry-server"
CLOSE_SECONDS = 3.0


class Traces:
    """Makes spans, whose parents are the callers' where these say so (W3C Trace Context).

    Args:
        provider: OpenTelemetry's provider of tracers.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("ferryline", version("ferryline"))
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER
        self._error = Status(StatusCode.ERROR)

    def wants(self, *, failed: bool) -> bool:  # noqa: ARG002 - the observers' form
        """All: the sampler decides, which may ask the caller's span."""
        return True

    def ended(self, record: CallRecord) -> None:
        """Make the span of a call that is over."""
        parent = {} if record.traceparent is None else {"traceparent": record.traceparent}
        span = self._tracer.start_span(
            f"{SERVICE}/{record.rpc}",
            context=self._propagator.extract(parent),
            kind=self._kind,
            attributes=_attributes(record),
            start_time=record.began_ns,
        )
        if record.failed:
            span.set_status(self._error)
        span.end(record.began_ns + int(record.seconds * _NS))

    def close(self) -> None:
        """Export what is left, for as long as a stop can wait; the library tries for a minute."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _attributes(record: CallRecord) -> dict[str, str]:
    status = "rpc.grpc.status" if record.transport == GRPC else "http.response.status_code"
    named = {
        "rpc.system": record.transport,
        "rpc.service": SERVICE,
        "rpc.method": record.rpc,
        status: record.status,
        "ferry.model": record.model,
        "ferry.version": record.version,
        "ferry.generation": record.generation,
        "ferry.request_id": record.request_id,
        "ferry.peer": record.peer,
    }
    return {name: value for name, value in named.items() if value}


def exporting_traces() -> Traces:
    """Traces that are exported as the OTEL_ variables say.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """
    require_extra(Extra.OTEL, "--traces")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: NAME}
    provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)
