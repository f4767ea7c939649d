"""HTTP bodies to messages and back, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import numpy as np
import orjson
import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.datatypes import Datatype
from ferryline.grpc_server.endpoint import endpoints
from ferryline.grpc_server.errors import InvalidRequestError
from ferryline.grpc_server.http_mirror import routes
from ferryline.grpc_server.http_mirror.documents import message_json
from ferryline.grpc_server.http_mirror.elements import json_elements, raw_from_json
from ferryline.grpc_server.http_mirror.inference import read_inference, write_reply
from ferryline.grpc_server.http_mirror.routes import Routes
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.tensors import decode_raw, encode_raw
from ferryline.protos import grpc_service_pb2 as pb

TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}


def body(**fields: Any) -> bytes:
    return orjson.dumps({"inputs": [TENSOR], **fields})


def read(data: bytes, header_length: str | None = None) -> pb.ModelInferRequest:
    return read_inference("m", "", data, header_length).request


def test_a_plain_request() -> None:
    inference = read_inference(
        "m", "3", body(id="7", parameters={"a": True, "b": 2**63, "c": -1, "d": 0.5}), None
    )
    request = inference.request
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "7")
    assert {name: value.WhichOneof("parameter_choice") for name, value in request.parameters.items()} == {
        "a": "bool_param", "b": "uint64_param", "c": "int64_param", "d": "double_param",
    }  # fmt: skip
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [1, 2])
    assert request.raw_input_contents == [np.array([1, 2.5], "<f4").tobytes()]
    assert not inference.wants_binary("y")


def test_binary_and_json_tensors_in_one_request() -> None:
    binary = {
        "name": "b",
        "datatype": "INT8",
        "shape": [3],
        "parameters": {"binary_data_size": 3, "kept": "k"},
    }
    head = orjson.dumps({"inputs": [binary, TENSOR, {**binary, "name": "c"}]})
    request = read(head + b"\1\2\3\4\5\6", str(len(head)))
    assert request.raw_input_contents == [b"\1\2\3", np.array([1, 2.5], "<f4").tobytes(), b"\4\5\6"]
    assert list(request.inputs[0].parameters) == ["kept"]


def test_the_form_of_outputs_is_chosen_for_all_and_for_each() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False, "classification": 2}}]
    inference = read_inference("m", "", body(outputs=outputs, parameters={"binary_data_output": True}), None)
    assert (inference.wants_binary("a"), inference.wants_binary("b")) == (True, False)
    assert list(inference.request.parameters) == []
    assert inference.request.outputs[1].parameters["classification"].int64_param == 2
    assert list(inference.request.outputs[1].parameters) == ["classification"]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in TENSOR.items() if name != key}


@pytest.mark.parametrize(
    ("data", "header", "words"),
    [
        (b"", None, "the request is no JSON"),
        (b"{", None, "the request is no JSON"),
        (b"\xff", None, "the request is no JSON"),
        (b"[" * 100_000, None, "the request is no JSON"),
        (b"[]", None, "the request must be a JSON object"),
        (body(inputs={}), None, "inputs must be a JSON array"),
        (body(inputs=[1]), None, "an input must be a JSON object"),
        (body(id=7), None, "the request's id must be a string"),
        (body(parameters=[]), None, "the parameters of the request must be a JSON object"),
        (body(parameters={"a": None}), None, "the parameter 'a' of the request is no boolean"),
        (body(outputs=[{}]), None, "an output's name must be a string"),
        (
            body(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
            None,
            "'binary_data' must be true or",
        ),
        (body(inputs=[without("name")]), None, "an input's name must be a string"),
        (body(inputs=[without("datatype")]), None, "the datatype of input 'x' must be a string"),
        (body(inputs=[without("shape")]), None, "the shape of input 'x' must be a JSON array"),
        (body(inputs=[without("data")]), None, "input 'x' has neither data nor binary_data_size"),
        (body(inputs=[{**TENSOR, "shape": [1.5]}]), None, "the shape of input 'x' must be whole numbers"),
        (body(inputs=[{**TENSOR, "shape": [True]}]), None, "the shape of input 'x' must be whole numbers"),
        (body(inputs=[{**TENSOR, "shape": [2**63]}]), None, "the shape of input 'x' must be whole numbers"),
        (body(inputs=[{**TENSOR, "datatype": "FP31"}]), None, "'FP31' is no datatype"),
        (body(inputs=[{**TENSOR, "data": "abc"}]), None, "input 'x' has data that are no list"),
        (body(inputs=[{**TENSOR, "data": [1, [2]]}]), None, "input 'x' has data of uneven depth"),
        (body(inputs=[{**TENSOR, "data": [1, "2"]}]), None, "input 'x' has element 1, which is not a number"),
        (
            body(inputs=[{**TENSOR, "data": [1, True]}]),
            None,
            "input 'x' has element 1, which is not a number",
        ),
        (
            body(inputs=[{**TENSOR, "data": [1, None]}]),
            None,
            "input 'x' has element 1, which is not a number",
        ),
        (body(inputs=[{**TENSOR, "data": [1, 1e39]}]), None, "input 'x' has a value beyond FP32"),
        (body(), "x", "Inference-Header-Content-Length is 'x'"),
        (body(), "0", "Inference-Header-Content-Length is '0'"),
        (body(), "-1", "Inference-Header-Content-Length is '-1'"),
        (body(), "9" * 5000, "Inference-Header-Content-Length is '9999"),
        (body(), "99999", "up to its "),
        (body() + b"12", str(len(body())), "2 bytes of binary data belong to no input"),
        (
            body(inputs=[{**TENSOR, "parameters": {"binary_data_size": 8}}]),
            None,
            "input 'x' has data beside binary_data_size",
        ),
        (
            body(inputs=[{**without("data"), "parameters": {"binary_data_size": 8}}]),
            None,
            "input 'x' has the binary_data_size '8', and 0 bytes of binary data follow",
        ),
        (
            body(inputs=[{**without("data"), "parameters": {"binary_data_size": -1}}]),
            None,
            "input 'x' has the binary_data_size '-1'",
        ),
    ],
)
def test_what_is_wrong_is_said(data: bytes, header: str | None, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(data, header)
    assert words in str(caught.value)


def test_shared_memory_is_left_to_the_contract_to_refuse() -> None:
    request = read(body(inputs=[{**without("data"), "parameters": {"shared_memory_region": "r"}}]))
    assert request.inputs[0].parameters["shared_memory_region"].string_param == "r"


def reply_of(array: np.ndarray, datatype: Datatype) -> pb.ModelInferResponse:
    reply = pb.ModelInferResponse(model_name="m", model_version="4", id="7")
    reply.outputs.add(name="y", datatype=datatype.name, shape=array.shape)
    reply.raw_output_contents.append(encode_raw(array, datatype))
    return reply


@pytest.mark.parametrize("datatype", datatypes.ALL, ids=lambda each: each.name)
def test_a_reply_of_every_datatype_in_both_forms(datatype: Datatype) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(datatype.dtype if not datatype.is_bytes else str)
    array = array.astype(object) if datatype.is_bytes else array
    reply = reply_of(array, datatype)
    text, length = write_reply(reply, read_inference("m", "", body(), None))
    assert length is None
    (output,) = orjson.loads(text)["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", datatype.name, [2, 2])
    assert raw_from_json(output["data"], datatype, [2, 2]) == reply.raw_output_contents[0]
    assert all(type(element) is not list for element in output["data"])

    data, length = write_reply(
        reply, read_inference("m", "", body(parameters={"binary_data_output": True}), None)
    )
    assert length is not None
    head = orjson.loads(data[:length])
    assert (head["id"], head["model_version"]) == ("7", "4")
    assert head["outputs"][0]["parameters"]["binary_data_size"] == len(data) - length
    assert data[length:] == reply.raw_output_contents[0]


def test_json_has_no_nan_and_gets_null() -> None:
    datatype = datatypes.of_protocol("FP32")
    text, _ = write_reply(
        reply_of(np.array([np.nan, 1], np.float32), datatype), read_inference("m", "", body(), None)
    )
    assert orjson.loads(text)["outputs"][0]["data"] == [None, 1]


@given(arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_floats_survive_the_way_through_json(array: np.ndarray) -> None:
    datatype = datatypes.of_protocol("FP32")
    text = orjson.dumps(json_elements(array, datatype), option=orjson.OPT_SERIALIZE_NUMPY)
    assert raw_from_json(orjson.loads(text), datatype, array.shape) == array.tobytes()


@given(st.lists(st.text(), max_size=6))
def test_text_survives_the_way_through_json(texts: list[str]) -> None:
    datatype = datatypes.of_protocol("BYTES")
    raw = raw_from_json(orjson.loads(orjson.dumps(texts)), datatype, [len(texts)])
    assert decode_raw(raw, datatype, [len(texts)]).tolist() == texts


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("INT8", [128]),
        ("INT8", [-129]),
        ("UINT8", [-1]),
        ("UINT64", [-1]),
        ("FP16", [70000]),
        ("INT64", [1.0]),
    ],
)
def test_what_a_datatype_cannot_hold_is_refused(name: str, values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"beyond|not a whole number"):
        raw_from_json(values, datatypes.of_protocol(name), [1])


def test_nested_data_are_flattened_as_deep_as_they_are() -> None:
    raw = raw_from_json([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], datatypes.of_protocol("INT8"), [2, 2, 2])
    assert raw == bytes(range(1, 9))
    assert raw_from_json([[], []], datatypes.of_protocol("INT8"), [2, 0]) == b""
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="uneven depth"):
        raw_from_json(deep, datatypes.of_protocol("INT8"), [])


def test_elements_are_counted_before_anything_is_done_for_each() -> None:
    not_even_numbers = [object()] * 3
    with pytest.raises(ValueError, match=r"has 3 elements, and INT8 \[2\] takes 2"):
        raw_from_json(not_even_numbers, datatypes.of_protocol("INT8"), [2])


def test_messages_are_json_with_numbers_names_and_what_is_set() -> None:
    config = pb.ModelConfig(name="m", max_batch_size=4)
    config.input.add(name="x", data_type="TYPE_FP32", dims=[-1, 2**40])
    config.parameters["k"].string_value = "v"
    found = message_json(config)
    assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2**40]}]
    assert (found["parameters"], found["output"]) == ({"k": {"string_value": "v"}}, [])
    assert "dynamic_batching" not in found
    assert message_json(pb.ModelStatistics(last_inference=2**60))["last_inference"] == 2**60


def test_a_body_that_does_not_end_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "BODY_SECONDS", 0.01)

    async def ask() -> None:
        body = StreamReader(Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
        body.feed_data(b"{")
        found = Routes({endpoint.name: endpoint for endpoint in endpoints(Models([]))[1]}).all()
        infer = next(route for route in found if route.path.endswith("/infer"))
        await infer.handler(make_mocked_request("POST", infer.path, match_info={"model": "m"}, payload=body))

    with pytest.raises(web.HTTPRequestTimeout) as raised:
        asyncio.run(ask())
    assert "did not arrive within 0.01 s" in str(raised.value.text)
