"""What observers are told of calls, and what they make of it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from ferryline.grpc_server.observation import traces as traces_module
from ferryline.grpc_server.observation.access_log import MOST_FAILURES, AccessLog
from ferryline.grpc_server.observation.heading import Heading, heading_of
from ferryline.grpc_server.observation.record import CallRecord, wanting
from ferryline.grpc_server.observation.traces import Traces
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE

CALL = CallRecord(
    transport="grpc",
    rpc="ModelInfer",
    status="OK",
    failed=False,
    began_ns=1_000_000_000,
    seconds=0.25,
    peer="web",
    model="m",
    version="7",
    generation="9",
    request_id="r1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


@given(name=st.text(max_size=40), version=st.text(max_size=10), request_id=st.text(max_size=190))
def test_a_heading_is_what_the_message_says(name: str, version: str, request_id: str) -> None:
    request = raw_request(name, version=version, x=np.ones((3, 4), np.float32))
    request.id = request_id
    found = heading_of("ModelInfer", request.SerializeToString())
    assert len(request_id.encode()) > 200 or found == Heading(name, version, request_id)


@given(rpc=st.sampled_from(["ModelInfer", "ModelReady", "RepositoryModelLoad"]), data=st.binary(max_size=60))
def test_no_bytes_harm_the_reader_of_headings(rpc: str, data: bytes) -> None:
    heading_of(rpc, data)


def test_headings_of_other_requests() -> None:
    load = pb.RepositoryModelLoadRequest(repository_name="r", model_name="m:staging").SerializeToString()
    assert heading_of("RepositoryModelLoad", load) == Heading("m:staging")
    assert heading_of(
        "ModelReady", pb.ModelReadyRequest(name="m", version="2").SerializeToString()
    ) == Heading("m", "2")
    assert heading_of("ServerLive", b"") == Heading()
    # parameters come late in a request, and a long name is cut
    assert heading_of(
        "ModelInfer", raw_request("m" * 5000, x=np.ones((1, 4), np.float32)).SerializeToString()
    )


def test_a_line_says_who_asked_what_and_how_it_ended() -> None:
    with capture_logs() as logs:
        AccessLog(1.0).ended(CALL)
    assert logs == [
        {
            "event": "call",
            "log_level": "info",
            "rpc": "ModelInfer",
            "transport": "grpc",
            "status": "OK",
            "ms": 250.0,
            "peer": "web",
            "model": "m",
            "version": "7",
            "generation": "9",
            "request_id": "r1",
        }
    ]


def test_a_share_of_what_succeeds_is_logged() -> None:
    draws = iter([0.09, 0.1, 0.5, 0.0])
    log = AccessLog(0.1, draw=lambda: next(draws))
    assert [log.wants(failed=False) for _ in range(4)] == [True, False, False, True]


def test_failures_cannot_fill_the_disk() -> None:
    second = 1.0
    log = AccessLog(0.01, clock=lambda: second)
    assert sum(log.wants(failed=True) for _ in range(500)) == MOST_FAILURES
    second = 2.0
    assert log.wants(failed=True)
    with capture_logs() as logs:
        log.ended(CALL)
        log.ended(CALL)
    assert [entry.get("failures_left_out") for entry in logs] == [500 - MOST_FAILURES, None]


def test_nobody_who_wants_nothing_is_asked() -> None:
    assert wanting([AccessLog(0.0, draw=lambda: 0.5)], failed=False) == []


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traces(exporter: InMemorySpanExporter, **options: object) -> Traces:
    provider = TracerProvider(**options)  # type: ignore[arg-type] - the options are the library's own
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Traces(provider)


def test_a_span_is_the_callers_child_and_lasts_as_long_as_the_call(exporter: InMemorySpanExporter) -> None:
    made = traces(exporter)
    made.ended(CALL)
    made.close()
    (span,) = exporter.get_finished_spans()
    assert span.name == "inference.GRPCInferenceService/ModelInfer"
    assert span.kind is SpanKind.SERVER
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert (span.start_time, span.end_time) == (1_000_000_000, 1_250_000_000)
    assert dict(span.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status": "OK",
        "ferry.model": "m",
        "ferry.version": "7",
        "ferry.generation": "9",
        "ferry.request_id": "r1",
        "ferry.peer": "web",
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_failure_is_a_span_with_an_error(exporter: InMemorySpanExporter) -> None:
    failed = CallRecord("http", "ModelInfer", "404", True, 0, 0.0, "127.0.0.1")
    traces(exporter).ended(failed)
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.parent) == (StatusCode.ERROR, None)
    assert (span.attributes or {})["http.response.status_code"] == "404"


def test_a_collector_that_is_away_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_module, "CLOSE_SECONDS", 0.05)
    released = threading.Event()

    class Stuck(TracerProvider):
        def shutdown(self) -> None:
            released.wait(DEADLINE)

    Traces(Stuck(shutdown_on_exit=False)).close()
    assert not released.is_set()
    released.set()


def test_the_sampler_decides(exporter: InMemorySpanExporter) -> None:
    made = traces(exporter, sampler=ParentBased(ALWAYS_OFF))
    made.ended(CallRecord("grpc", "ModelInfer", "OK", False, 0, 0.0, "web"))
    assert not exporter.get_finished_spans()
    made.ended(CALL)  # its caller's span is sampled
    assert len(exporter.get_finished_spans()) == 1
