"""A server with a model that is too slow for its callers."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import orjson
import pytest

from ferryline.grpc_server.status_details import KEY, RETRY_INFO
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.held_runs import HeldRuns, holding_runs
from tests.grpc_server.running_server import RunningServer
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.waiting import DEADLINE, wait_for

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
def held() -> Iterator[HeldRuns]:
    with holding_runs() as runs:
        yield runs


@pytest.fixture
def slow_server(site: Site, held: HeldRuns) -> Iterator[RunningServer]:
    """One whose model `m` runs until its runs are let go."""
    site.publish(model_files.held(1))
    site.publish(model_files.plus(5), "quick")
    with site.server("m", "quick") as server:
        server.wait_until_healthy()
        yield server


@dataclass(frozen=True, slots=True)
class Outcome:
    code: grpc.StatusCode
    trailers: Mapping[str, bytes | str]


class Load:
    """Calls that are under way at once."""

    def __init__(self, server: RunningServer, count: int, *, timeout: float) -> None:
        infer = server.channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        data = raw_request("m", x=ROW).SerializeToString()
        self._calls: list[Any] = [infer.future(data, timeout=timeout) for _ in range(count)]

    def under_way(self) -> int:
        return sum(not call.done() for call in self._calls)

    def cancel(self) -> None:
        for call in self._calls:
            call.cancel()

    def outcomes(self) -> list[Outcome]:
        """What came of each, once it has ended."""
        return [Outcome(call.code(), dict(call.trailing_metadata())) for call in self._calls]


def codes(outcomes: list[Outcome]) -> Counter[grpc.StatusCode]:
    return Counter(outcome.code for outcome in outcomes)


class FullQueue:
    """A model of which one run is held, and as many calls wait as may."""

    def __init__(self, server: RunningServer, held: HeldRuns) -> None:
        begun = held.begun
        self._loads = [Load(server, 1, timeout=DEADLINE)]
        wait_for(lambda: held.begun == begun + 1, "a run")
        self._loads.append(Load(server, WAITING, timeout=DEADLINE))
        wait_for(lambda: of_m(server, "nv_inference_pending_request_count") == WAITING, "a full queue")

    def under_way(self) -> int:
        return sum(load.under_way() for load in self._loads)

    def cancel(self) -> None:
        for load in self._loads:
            load.cancel()

    def outcomes(self) -> list[Outcome]:
        return [outcome for load in self._loads for outcome in load.outcomes()]


def of_m(server: RunningServer, name: str) -> float:
    return server.metrics()[f'{name}{{model="m",version="1"}}']


def test_beyond_its_queue_the_server_says_when_to_retry_and_goes_on_answering(
    slow_server: RunningServer, held: HeldRuns
) -> None:
    full = FullQueue(slow_server, held)
    refused = Load(slow_server, CALLERS, timeout=DEADLINE).outcomes()
    assert codes(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED: CALLERS}
    for outcome in refused:
        details = outcome.trailers[KEY]
        assert isinstance(details, bytes)
        assert RETRY_INFO.encode() in details
    held.let_go()
    assert codes(full.outcomes()) == {grpc.StatusCode.OK: 1 + WAITING}
    assert of_m(slow_server, "ferry_overloaded_requests") == CALLERS
    assert of_m(slow_server, "nv_inference_exec_count") == 1 + WAITING
    assert of_m(slow_server, "nv_inference_pending_request_count") == 0
    assert of_m(slow_server, "nv_inference_queue_duration_us") > 0


def test_over_http_it_says_503_as_triton_does_and_when_to_retry(
    slow_server: RunningServer, held: HeldRuns
) -> None:
    full = FullQueue(slow_server, held)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW.ravel().tolist()}
    with closing(http.client.HTTPConnection(slow_server.http_address, timeout=DEADLINE)) as connection:
        connection.request("POST", "/v2/models/m/infer", orjson.dumps({"inputs": [tensor]}))
        reply = connection.getresponse()
        document = orjson.loads(reply.read())
    assert (reply.status, list(document)) == (503, ["error"])
    assert "model 'm' is overloaded" in document["error"]
    assert 1 <= int(reply.headers["Retry-After"]) <= 60
    held.let_go()
    assert set(codes(full.outcomes())) == {grpc.StatusCode.OK}


def test_a_slow_model_holds_up_no_other(slow_server: RunningServer, held: HeldRuns) -> None:
    full = FullQueue(slow_server, held)
    assert slow_server.plus("quick") == 5
    assert full.under_way() == 1 + WAITING
    held.let_go()
    assert set(codes(full.outcomes())) == {grpc.StatusCode.OK}


def test_callers_who_gave_up_are_not_worked_for(slow_server: RunningServer, held: HeldRuns) -> None:
    full = FullQueue(slow_server, held)
    full.cancel()
    wait_for(lambda: of_m(slow_server, "nv_inference_pending_request_count") == 0, "an empty queue")
    outcomes = Load(slow_server, WAITING, timeout=0.01).outcomes()
    assert set(codes(outcomes)) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    # those that ran when their callers left were ended, and at most few began while they were leaving
    assert of_m(slow_server, "nv_inference_exec_count") < WAITING - 1
    held.let_go()
    assert Load(slow_server, 1, timeout=DEADLINE).outcomes()[0].code is grpc.StatusCode.OK


def test_a_server_with_a_full_queue_stops_in_time(site: Site, held: HeldRuns) -> None:
    site.publish(model_files.held(1))
    with site.server(flags=["--drain-seconds", "1"]) as server:
        server.wait_until_healthy()
        full = FullQueue(server, held)
        server.ask_to_stop()
        assert server.wait() == 0, "it ends while the run is held"
        assert grpc.StatusCode.OK not in codes(full.outcomes())
    assert "Traceback" not in server.log()


def test_a_batched_model_gives_each_caller_his_own_rows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.publish(model_files.plus(5))
    monkeypatch.setenv("FERRY_SERVER_QUEUE_REQUESTS", "1000")
    with site.server(flags=["--batch", "m=64:200ms"]) as server:
        server.wait_until_healthy()

        infer = server.channel.unary_unary(
            METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        arrays = [np.full((1 + number % 3, 4), number, np.float32) for number in range(200)]
        calls = [infer.future(raw_request("m", x=array), timeout=DEADLINE) for array in arrays]
        for array, call in zip(arrays, calls, strict=True):
            np.testing.assert_array_equal(float_output(call.result()), array + 5)
        metrics, labels = server.metrics(), '{model="m",version="1"}'
        assert metrics[f"nv_inference_request_success{labels}"] == 200
        assert metrics[f"nv_inference_exec_count{labels}"] < 150
        assert metrics[f"nv_inference_count{labels}"] == sum(1 + number % 3 for number in range(200))
