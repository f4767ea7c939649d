"""Triton's own clients against a server: gRPC, asyncio, streams and HTTP."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException

from ferryline.registry import TrainingRecord
from ferryline.registry.documents import Lineage, utc_now
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE, wait_for

triton_http = pytest.importorskip("tritonclient.http")

BOTH = ("grpc", "http")
PROVENANCE = {"ferry-version", "ferry-generation", "ferry-digest", "ferry-data-age-seconds"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    site = Site(tmp_path_factory.mktemp("site"))
    lineage = Lineage(topic="t", offsets=(), records=1, newest_event_time=utc_now())
    data = model_files.plus(5)
    from ferryline.model_runtime.facts import read_facts

    version = site.registry.publish("m", data, read_facts(data), TrainingRecord(lineage=lineage)).version
    site.registry.promote("m", version)
    site.publish(model_files.identity("string", ["n"]), "text")
    site.publish(model_files.identity("float16", ["n", 3]), "half")
    site.publish(model_files.identity("bool", ["n"]), "flags")
    site.publish(model_files.sum_and_difference(), "two")
    site.publish(model_files.digits_classifier(), "digits")
    with site.server("m", "text", "half", "flags", "two", "digits") as running:
        running.wait_until_healthy()
        yield running


@pytest.fixture(params=BOTH)
def kind(request: pytest.FixtureRequest) -> Any:
    return triton if request.param == "grpc" else triton_http


@pytest.fixture
def client(server: RunningServer, kind: Any) -> Iterator[Any]:
    address = server.address if kind is triton else server.http_address
    with kind.InferenceServerClient(address) as made:
        yield made


def tensor(kind: Any, name: str, datatype: str, array: np.ndarray) -> Any:
    made = kind.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def as_json(kind: Any, found: Any) -> Any:
    """HTTP's client gives JSON as it is, gRPC's on request."""
    return found if kind is triton_http else triton_json(found)


def triton_json(message: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True)


def test_the_server_and_its_models_describe_themselves(kind: Any, client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("nothing")
    assert "statistics" in as_json(kind, client.get_server_metadata())["extensions"]
    metadata = as_json(kind, client.get_model_metadata("two"))
    assert [each["name"] for each in metadata["inputs"]] == ["a", "b"]
    config = as_json(kind, client.get_model_config("m"))
    config = config.get("config", config)
    assert (config["name"], config["input"][0]["data_type"]) == ("m", "TYPE_FP32")
    assert config["max_batch_size"] == 64 * 2**20 // 16


def test_every_kind_of_tensor_goes_there_and_back(kind: Any, client: Any) -> None:
    cases = [
        ("m", "FP32", ROW, ROW + 5),
        ("text", "BYTES", np.array([b"one", "zwölf".encode(), b""], dtype=object), None),
        ("half", "FP16", np.array([[1.5, -2, 65504]], np.float16), None),
        ("flags", "BOOL", np.array([True, False, True]), None),
    ]
    for model, datatype, sent, expected in cases:
        result = client.infer(model, [tensor(kind, "x", datatype, sent)])
        np.testing.assert_array_equal(result.as_numpy("y"), sent if expected is None else expected)


def test_many_inputs_chosen_outputs_an_id_and_parameters(kind: Any, client: Any) -> None:
    left, right = np.array([[1, 2, 3]]), np.array([[10, 20, 30]])
    inputs = [tensor(kind, "b", "INT64", right), tensor(kind, "a", "INT64", left)]
    outputs = [kind.InferRequestedOutput("both"), kind.InferRequestedOutput("sum")]
    result = client.infer(
        "two", inputs, outputs=outputs, request_id="42", model_version="1", parameters={"mark": "k"}
    )
    np.testing.assert_array_equal(result.as_numpy("sum"), left + right)
    np.testing.assert_array_equal(result.as_numpy("both"), np.hstack([left, right]))
    assert result.as_numpy("difference") is None
    reply = as_json(kind, result.get_response())
    assert (reply["id"], reply["model_version"]) == ("42", "1")
    assert reply["parameters"]["mark"] in ("k", {"string_param": "k"})
    assert {"ferry_generation", "ferry_digest", "ferry_channel"} <= set(reply["parameters"])


def test_classification(kind: Any, client: Any) -> None:
    rows = np.zeros((2, 64), np.float32)
    outputs = [kind.InferRequestedOutput("probabilities", class_count=3), kind.InferRequestedOutput("label")]
    result = client.infer("digits", [tensor(kind, "X", "FP32", rows)], outputs=outputs)
    classes = result.as_numpy("probabilities")
    assert classes.shape == (2, 3)
    assert int(classes[0, 0].decode().split(":")[1]) == result.as_numpy("label")[0]


def test_json_tensors_over_http(server: RunningServer) -> None:
    with triton_http.InferenceServerClient(server.http_address) as client:
        sent = triton_http.InferInput("x", [1, 4], "FP32")
        sent.set_data_from_numpy(ROW, binary_data=False)
        output = triton_http.InferRequestedOutput("y", binary_data=False)
        np.testing.assert_array_equal(client.infer("m", [sent], outputs=[output]).as_numpy("y"), ROW + 5)
        np.testing.assert_array_equal(client.infer("m", [sent]).as_numpy("y"), ROW + 5)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_bodies_over_http(server: RunningServer, algorithm: str) -> None:
    with triton_http.InferenceServerClient(server.http_address) as client:
        result = client.infer(
            "m",
            [tensor(triton_http, "x", "FP32", ROW)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        np.testing.assert_array_equal(result.as_numpy("y"), ROW + 5)


def test_statistics_count_what_this_client_asks(kind: Any, client: Any) -> None:
    def found() -> Any:
        return as_json(kind, client.get_inference_statistics("half"))["model_stats"][0]

    def count(stats: Any, *path: str) -> int:
        for each in path:
            stats = stats.get(each, {})
        return int(stats or 0)

    before = found()
    for _ in range(3):
        client.infer("half", [tensor(kind, "x", "FP16", np.ones((2, 3), np.float16))])
    with pytest.raises(InferenceServerException):
        client.infer("half", [tensor(kind, "x", "FP16", np.ones((2, 4), np.float16))])
    after = found()
    grown = {
        path: count(after, *path) - count(before, *path)
        for path in (
            ("inference_count",),
            ("execution_count",),
            ("inference_stats", "success", "count"),
            ("inference_stats", "fail", "count"),
        )
    }
    assert list(grown.values()) == [6, 3, 3, 1]
    assert count(after, "inference_stats", "compute_infer", "ns") > 0
    assert len(as_json(kind, client.get_inference_statistics())["model_stats"]) == 6


def test_the_repository_is_listed_and_not_changed(kind: Any, client: Any) -> None:
    index = as_json(kind, client.get_model_repository_index())
    models = index if kind is triton_http else index["models"]
    assert {(each["name"], each["version"], each["state"]) for each in models} >= {("m", "1", "READY")}
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="is not allowed if polling is enabled"):
            change("m")


def test_what_there_is_not_is_said(kind: Any, client: Any) -> None:
    for ask in (client.get_trace_settings, client.get_log_settings, client.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException, match=r"by request|not supported"):
            ask()
    with pytest.raises(InferenceServerException, match="not supported"):
        client.register_system_shared_memory("region", "/key", 64)
    sent = kind.InferInput("x", [1, 4], "FP32")
    sent.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared memory is not supported here"):
        client.infer("m", [sent])


@pytest.mark.parametrize(
    ("model", "version", "shape", "words"),
    [
        ("m", "", [1, 5], r"input 'x' has shape \[1, 5\], expected \[-1, 4\]"),
        ("none", "", [1, 4], "no model 'none' here"),
        ("m", "9", [1, 4], "no warm version 9"),
    ],
)
def test_errors_reach_the_caller(
    kind: Any, client: Any, model: str, version: str, shape: list[int], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words):
        client.infer(model, [tensor(kind, "x", "FP32", np.ones(shape, np.float32))], model_version=version)


def test_http_says_where_an_answer_comes_from_in_headers(server: RunningServer) -> None:
    with triton_http.InferenceServerClient(server.http_address) as client:
        response = client.infer("m", [tensor(triton_http, "x", "FP32", ROW)])
        assert response.get_response()["parameters"]["ferry_data_age_seconds"] >= 0


def test_grpc_says_where_an_answer_comes_from_in_trailing_metadata(server: RunningServer) -> None:
    from ferryline.protos.grpc_service_pb2 import ModelInferResponse

    ask = server.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=ModelInferResponse.FromString,
    )
    for _ in range(2):  # the long way, and then the short one
        reply, call = ask.with_call(raw_request("m", x=ROW), timeout=DEADLINE)
        said = dict(call.trailing_metadata())
        assert set(said) >= PROVENANCE
        assert said["ferry-digest"] == reply.parameters["ferry_digest"].string_param
        assert said["ferry-version"] == reply.model_version


async def test_the_asyncio_client_and_its_stream(server: RunningServer) -> None:
    async with triton_aio.InferenceServerClient(server.address) as client:
        assert await client.is_server_ready()
        result = await client.infer("m", [tensor(triton_aio, "x", "FP32", ROW)])
        np.testing.assert_array_equal(result.as_numpy("y"), ROW + 5)

        async def requests() -> Any:
            for number in range(200):
                model = "m" if number % 10 else "none"
                sent = tensor(triton_aio, "x", "FP32", ROW * number)
                yield {"model_name": model, "inputs": [sent], "request_id": str(number)}

        number = 0
        async for answer, error in client.stream_infer(requests()):
            if number % 10:
                assert error is None
                assert answer.get_response().id == str(number)
                np.testing.assert_array_equal(answer.as_numpy("y"), ROW * number + 5)
            else:
                assert "no model 'none' here" in error.message()
            number += 1
        assert number == 200


@pytest.mark.parametrize("final", [False, True])
def test_the_clients_stream(server: RunningServer, final: bool) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(100):
            model = "m" if number != 50 else "none"
            client.async_stream_infer(
                model,
                [tensor(triton, "x", "FP32", ROW + number)],
                request_id=str(number),
                enable_empty_final_response=final,
            )
        found = [answers.get(timeout=DEADLINE) for _ in range(100)]
        client.stop_stream()
    for number, (result, error) in enumerate(found):
        if number == 50:
            assert "no model 'none' here" in error.message()
            continue
        reply = result.get_response()
        assert reply.id == str(number)
        np.testing.assert_array_equal(result.as_numpy("y"), ROW + number + 5)
        assert reply.parameters["triton_final_response"].bool_param is final


def reported(site: Site) -> set[str]:
    return {model.model for beat in site.registry.consumers.all() for model in beat.models}


def test_callers_load_and_unload_models_in_explicit_mode(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    site.publish(model_files.plus(6), "n")
    with (
        site.server("m", flags=["--model-control", "explicit"]) as server,
        triton.InferenceServerClient(server.address) as client,
    ):
        server.wait_until_healthy()
        client.load_model("n")
        assert server.plus("n") == 6
        assert server.health("n") == "SERVING"
        client.unload_model("m")
        assert not client.is_model_ready("m")
        with pytest.raises(InferenceServerException, match="no model 'm' here; this server serves 'n'"):
            client.infer("m", [tensor(triton, "x", "FP32", ROW)])
        states = {each.name: each.state for each in client.get_model_repository_index().models}
        assert states == {"n": "READY", "m": "UNAVAILABLE"}
        with pytest.raises(InferenceServerException, match="failed to load 'none'"):
            client.load_model("none")
        site.publish(model_files.plus(7), "m")
        client.load_model("m")
        assert [server.plus("m"), server.plus("m")] == [7, 7]
        wait_for(lambda: reported(site) == {"m", "n"}, "the heartbeat")
