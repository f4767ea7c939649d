"""The real server with a model that is too slow for its callers."""

from __future__ import annotations

import http.client
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import numpy as np
import orjson
import pytest

from grpc_server.status_details import KEY, RETRY_INFO
from protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ServerProcess, Site
from tests.grpc_server.shop import float_output, raw_request, wait_for

pytestmark = pytest.mark.integration

METHOD = "/inference.GRPCInferenceService/ModelInfer"
ROW = np.array([[1, 2, 3, 4]], np.float32)
CALLERS = 24
WAITING = 5


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("FERRY_SERVER_QUEUE_REQUESTS", str(WAITING))
    monkeypatch.setenv("FERRY_SERVER_RUN_THREADS", "1")
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def slow_server(site: Site) -> Iterator[ServerProcess]:
    site.publish(model_files.slow(turns=40, size=500))
    site.publish(model_files.plus(5), "quick")
    with site.server("m", "quick", flags=["--drain-seconds", "3"]) as server:
        server.wait_until_healthy()
        yield server


@dataclass(frozen=True, slots=True)
class Outcome:
    code: grpc.StatusCode
    seconds: float
    trailers: Mapping[str, bytes | str]


class Load:
    """Calls that are under way at once."""

    def __init__(self, server: ServerProcess, count: int, *, timeout: float) -> None:
        infer = server.channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        data = raw_request("m", x=ROW).SerializeToString()
        self._began = time.perf_counter()
        self._ended: dict[int, float] = {}
        self._calls = []
        for number in range(count):
            call = infer.future(data, timeout=timeout)
            call.add_done_callback(partial(self._note, number))
            self._calls.append(call)

    def _note(self, number: int, _call: object) -> None:
        self._ended[number] = time.perf_counter() - self._began

    def outcomes(self) -> list[Outcome]:
        return [self._outcome(number, call) for number, call in enumerate(self._calls)]

    def _outcome(self, number: int, call: Any) -> Outcome:
        code, trailers = call.code(), dict(call.trailing_metadata())  # both wait for the end
        wait_for(lambda: number in self._ended, "the end of a call")
        return Outcome(code, self._ended[number], trailers)


def codes(outcomes: list[Outcome]) -> Counter[grpc.StatusCode]:
    return Counter(outcome.code for outcome in outcomes)


def test_beyond_its_queue_the_server_says_when_to_retry_and_goes_on_answering(
    slow_server: ServerProcess,
) -> None:
    outcomes = Load(slow_server, CALLERS, timeout=60).outcomes()
    found = codes(outcomes)
    assert set(found) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert WAITING <= found[grpc.StatusCode.OK] <= CALLERS - WAITING
    for outcome in outcomes:
        if outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            details = outcome.trailers[KEY]
            assert isinstance(details, bytes)
            assert RETRY_INFO.encode() in details
    metrics = slow_server.metrics()
    labels = '{model="m",version="1"}'
    assert metrics[f"ferry_overloaded_requests{labels}"] == found[grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert metrics[f"nv_inference_exec_count{labels}"] == found[grpc.StatusCode.OK]
    assert metrics[f"nv_inference_pending_request_count{labels}"] == 0
    assert metrics[f"nv_inference_queue_duration_us{labels}"] > 0


def test_over_http_it_says_503_as_triton_does_and_when_to_retry(slow_server: ServerProcess) -> None:
    load = Load(slow_server, CALLERS, timeout=60)
    wait_for(
        lambda: slow_server.metrics()['nv_inference_pending_request_count{model="m",version="1"}'] == WAITING,
        "a full queue",
    )
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW.ravel().tolist()}
    with closing(http.client.HTTPConnection(slow_server.http_address, timeout=60)) as connection:
        connection.request("POST", "/v2/models/m/infer", orjson.dumps({"inputs": [tensor]}))
        reply = connection.getresponse()
        document = orjson.loads(reply.read())
    assert (reply.status, list(document)) == (503, ["error"])
    assert "model 'm' is overloaded" in document["error"]
    assert 1 <= int(reply.headers["Retry-After"]) <= 60
    load.outcomes()


def test_a_slow_model_holds_up_no_other(slow_server: ServerProcess) -> None:
    labels = '{model="m",version="1"}'
    load = Load(slow_server, CALLERS, timeout=60)
    wait_for(lambda: slow_server.metrics()[f"nv_inference_pending_request_count{labels}"] > 0, "a queue")
    began = time.perf_counter()
    assert slow_server.plus("quick") == 5
    took = time.perf_counter() - began
    slowest = max(outcome.seconds for outcome in load.outcomes() if outcome.code is grpc.StatusCode.OK)
    assert took < slowest / 2


def test_callers_who_gave_up_are_not_worked_for(slow_server: ServerProcess) -> None:
    labels = '{model="m",version="1"}'
    outcomes = Load(slow_server, WAITING, timeout=0.01).outcomes()
    assert set(codes(outcomes)) <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}
    wait_for(
        lambda: slow_server.metrics()[f"nv_inference_pending_request_count{labels}"] == 0, "an empty queue"
    )
    # the one that ran when they left was ended, and at most few began while they were leaving
    assert slow_server.metrics()[f"nv_inference_exec_count{labels}"] < WAITING - 1
    assert Load(slow_server, 1, timeout=60).outcomes()[0].code is grpc.StatusCode.OK


def test_a_server_with_a_full_queue_stops_in_time(site: Site) -> None:
    site.publish(model_files.slow(turns=300, size=700))  # a run of seconds
    with site.server(flags=["--drain-seconds", "1"]) as server:
        server.wait_until_healthy()

        labels = '{model="m",version="1"}'
        load = Load(server, WAITING + 1, timeout=60)
        wait_for(
            lambda: server.metrics()[f"nv_inference_pending_request_count{labels}"] == WAITING, "a full queue"
        )
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        outcomes = load.outcomes()
        assert server.process.wait(15) == 0, server.log()
        assert time.monotonic() - began < 15
    assert codes(outcomes)[grpc.StatusCode.OK] < WAITING
    assert "Traceback" not in server.log()


def test_a_batched_model_gives_each_caller_his_own_rows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.publish(model_files.plus(5))
    monkeypatch.setenv("FERRY_SERVER_QUEUE_REQUESTS", "1000")
    with site.server(flags=["--batch", "m=64:2ms"]) as server:
        server.wait_until_healthy()

        infer = server.channel.unary_unary(
            METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        arrays = [np.full((1 + number % 3, 4), number, np.float32) for number in range(200)]
        calls = [infer.future(raw_request("m", x=array), timeout=30) for array in arrays]
        for array, call in zip(arrays, calls, strict=True):
            np.testing.assert_array_equal(float_output(call.result()), array + 5)
        metrics, labels = server.metrics(), '{model="m",version="1"}'
        assert metrics[f"nv_inference_request_success{labels}"] == 200
        assert metrics[f"nv_inference_exec_count{labels}"] < 150
        assert metrics[f"nv_inference_count{labels}"] == sum(1 + number % 3 for number in range(200))
