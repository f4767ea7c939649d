"""What operators are told: readiness, figures, traces, and what a fault says to callers."""

from __future__ import annotations

import gzip
import http.client
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import grpc
import numpy as np
import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ferryline.grpc_server.endpoint import SERVICE
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE, wait_for

INFER = f"/{SERVICE}/ModelInfer"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    return made


def health_page(server: RunningServer, path: str = "/health/ready") -> tuple[int, dict[str, object]]:
    host = server.metrics_url.split("/")[2]
    with closing(http.client.HTTPConnection(host, timeout=DEADLINE)) as connection:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, orjson.loads(reply.read())


def test_a_model_that_is_optional_does_not_keep_the_server_from_being_ready(site: Site) -> None:
    with site.server("m", "later", "extra", flags=["--optional", "extra"]) as server:
        wait_for(lambda: server.health("m") == "SERVING", "the first model")
        assert server.health() == "NOT_SERVING"
        status, found = health_page(server)
        assert (status, found["ready"]) == (503, False)
        site.publish(model_files.plus(1), "later")
        server.wait_until_healthy()
        assert server.health("extra") == "NOT_SERVING"
        status, found = health_page(server)
        assert status == 200
        models = found["models"]
        assert isinstance(models, dict)
        assert {name: (each["required"], each["ready"]) for name, each in models.items()} == {
            "m": (True, True),
            "later": (True, True),
            "extra": (False, False),
        }
        assert health_page(server, "/health/live") == (200, {"live": True})


def test_a_store_that_is_away_shows_and_changes_nothing_for_callers(site: Site) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        assert server.metric("ferry_generations_behind") == 0
        assert server.metric("ferry_seconds_behind") == 0
        site.take_away()
        wait_for(lambda: server.metric("ferry_follower_failing_seconds") > 0.2, "the failure")
        failing = server.metric("ferry_follower_failing_seconds")
        # the last good look was before the first that failed
        assert server.metric("ferry_channel_read_age_seconds") > failing
        status, found = health_page(server)
        models = found["models"]
        assert isinstance(models, dict)
        assert (status, models["m"]["ready"]) == (200, True), "what serves goes on"
        assert models["m"]["failing_seconds"] > 0
        assert models["m"]["last_error"]
        assert server.plus() == 5
        site.bring_back()
        wait_for(lambda: server.metric("ferry_follower_failing_seconds") == 0, "the return")
        age = server.metric("ferry_channel_read_age_seconds")
        wait_for(lambda: server.metric("ferry_channel_read_age_seconds") < age, "another look")


def test_a_refused_generation_shows_as_one_behind(site: Site) -> None:
    with site.server() as server:
        server.wait_until_healthy()
        promised = model_files.plus(2)
        site.publish(model_files.plus(2, features=5), facts_of=promised)
        refusals = 'ferry_refusals_total{channel="production",gate="contract",model="m"}'
        wait_for(lambda: server.metrics().get(refusals) == 1, "the refusal")
        assert server.metric("ferry_generations_behind") == 1
        assert server.metric("ferry_seconds_behind") > 0
        site.publish(model_files.plus(3))
        wait_for(lambda: server.metric("ferry_generations_behind") == 0, "the next one")
        assert server.metric("ferry_seconds_behind") == 0


class _TraceCollector(BaseHTTPRequestHandler):
    """Takes spans as OTLP over HTTP."""

    spans: ClassVar[list[Span]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        self.spans += [
            span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans
        ]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_spans_reach_a_collector_as_children_of_their_callers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _TraceCollector) as collector:
        serving = threading.Thread(target=collector.serve_forever)
        serving.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        with site.server(flags=["--traces"]) as server:
            server.wait_until_healthy()
            parent = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
            request = raw_request("m", x=ROW).SerializeToString()
            server.channel.unary_unary(INFER)(request, timeout=DEADLINE, metadata=parent)
            assert infer_over_http(server, "m", "FP32", [[1, 2, 3, 4]])[0] == 200
        # the stop has exported what was left
        collector.shutdown()
        serving.join()
    spans = {
        attribute.value.string_value: span
        for span in _TraceCollector.spans
        for attribute in span.attributes
        if attribute.key == "rpc.system"
    }
    assert set(spans) == {"grpc", "http"}
    assert spans["grpc"].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert spans["grpc"].parent_span_id.hex() == "b7ad6b7169203331"
    found = {attribute.key: attribute.value.string_value for attribute in spans["http"].attributes}
    assert (found["ferry.model"], found["ferry.version"]) == ("m", "1")


def test_faults_of_the_server_reach_callers_as_an_id_and_nothing_else(site: Site) -> None:
    """The model fails on such an input; its file's path, its nodes and our stack are for the log."""
    site.publish(model_files.lookup(), "lookup")
    with site.server("lookup") as server:
        server.wait_until_healthy()
        request = pb.ModelInferRequest(model_name="lookup")
        request.inputs.add(name="x", datatype="INT64", shape=[1])
        request.raw_input_contents.append((99).to_bytes(8, "little"))
        with pytest.raises(grpc.RpcError) as caught:
            server.channel.unary_unary(INFER)(request.SerializeToString(), timeout=DEADLINE)
        over_grpc = caught.value.details()
        over_http = infer_over_http(server, "lookup", "INT64", [99])[1]["error"]
        for text in (over_grpc, over_http):
            assert "Traceback" not in text
            assert ".py" not in text
            assert str(site.folder) not in text


def infer_over_http(server: RunningServer, model: str, datatype: str, data: list[int]) -> tuple[int, Any]:
    tensor = {"name": "x", "datatype": datatype, "shape": list(np.shape(data)), "data": data}
    with closing(http.client.HTTPConnection(server.http_address, timeout=DEADLINE)) as connection:
        connection.request("POST", f"/v2/models/{model}/infer", orjson.dumps({"inputs": [tensor]}))
        reply = connection.getresponse()
        return reply.status, orjson.loads(reply.read())
