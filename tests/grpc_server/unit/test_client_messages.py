"""Arrays to requests and replies to answers, in the client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.client import InferenceError, InputError, UnreadableAnswerError
from ferryline.grpc_server.client.messages import Question, answer_of, request_of, streamed_answer_of
from ferryline.protos import grpc_service_pb2 as pb

SHAPES = npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
TEXTS = npst.arrays(object, SHAPES, elements=st.text(max_size=5))
NUMBERS = st.sampled_from([datatype.dtype for datatype in datatypes.ALL if not datatype.is_bytes]).flatmap(
    lambda dtype: npst.arrays(dtype, SHAPES)
)


def echoed(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    reply = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        reply.raw_output_contents.append(raw)
    for name, value in request.parameters.items():
        reply.parameters[name].CopyFrom(value)
    return pb.ModelInferResponse.FromString(reply.SerializeToString())


@given(NUMBERS | TEXTS)
def test_every_array_survives_the_wire(array: datatypes.Array) -> None:
    answer = answer_of(echoed(request_of(Question("m"), {"x": array})))
    assert answer["x"].dtype == array.dtype
    np.testing.assert_array_equal(answer["x"], array)


def test_a_question_says_all_that_it_asks() -> None:
    parameters = {"yes": True, "whole": 3, "half": 0.5, "word": "w"}
    question = Question("m", "staging", ["y"], "id-7", parameters)
    request = request_of(question, {"x": np.ones(1)})
    assert (request.model_name, request.model_version, request.id) == ("m", "staging", "id-7")
    assert [output.name for output in request.outputs] == ["y"]
    answer = answer_of(echoed(request))
    assert (answer.id, answer.parameters) == ("id-7", parameters)


@pytest.mark.parametrize("value", [2**63, [1], None])
def test_a_parameter_that_the_protocol_does_not_carry_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="parameter 'p'"):
        request_of(Question("m", parameters={"p": value}), {})  # type: ignore[dict-item]  # on purpose


def test_an_array_that_the_protocol_does_not_carry_is_refused() -> None:
    with pytest.raises(InputError, match="input 'x': no datatype of the protocol carries complex128"):
        request_of(Question("m"), {"x": np.ones(1, complex)})


def test_an_answer_says_where_it_comes_from() -> None:
    reply = pb.ModelInferResponse(model_name="m", model_version="7")
    reply.parameters["ferry_generation"].int64_param = 9
    reply.parameters["ferry_digest"].string_param = "abc"
    reply.parameters["ferry_channel"].string_param = "production"
    reply.parameters["ferry_data_age_seconds"].double_param = 3600.0
    reply.parameters["other"].int64_param = 1
    began = datetime.now(UTC)
    answer = answer_of(reply)
    by = answer.model
    assert (by.name, by.version, by.generation, by.digest, by.channel) == ("m", "7", 9, "abc", "production")
    assert by.trained_until is not None
    assert began <= by.trained_until + timedelta(hours=1) <= datetime.now(UTC)
    assert answer.parameters == {"other": 1}


def test_a_server_that_says_less_is_understood() -> None:
    reply = pb.ModelInferResponse(model_name="m")
    tensor = reply.outputs.add(name="y", datatype="INT32", shape=[2])
    tensor.contents.int_contents.extend([1, -2])
    answer = answer_of(reply)
    assert answer["y"].tolist() == [1, -2]
    assert (answer.model.generation, answer.model.trained_until) == (None, None)


def test_outputs_are_a_mapping_and_say_what_there_is() -> None:
    answer = answer_of(echoed(request_of(Question("m"), {"a": np.ones(1), "b": np.ones(1)})))
    assert (list(answer), len(answer)) == (["a", "b"], 2)
    with pytest.raises(KeyError, match="no output 'c'; there are a, b"):
        answer["c"]


@pytest.mark.parametrize(
    ("datatype", "raw", "words"),
    [("FP32", b"123", "3 bytes"), ("FP99", b"", "no datatype"), ("BYTES", b"\1\0\0\0\xff", "not UTF-8")],
)
def test_a_reply_that_breaks_the_protocol_is_named(datatype: str, raw: bytes, words: str) -> None:
    reply = pb.ModelInferResponse(raw_output_contents=[raw])
    reply.outputs.add(name="y", datatype=datatype, shape=[1])
    with pytest.raises(UnreadableAnswerError, match=f"output 'y' cannot be read: .*{words}"):
        answer_of(reply)


def test_a_reply_without_the_bytes_it_announces_is_named() -> None:
    reply = pb.ModelInferResponse(raw_output_contents=[b"\0\0\0\0"])
    for name in "ab":
        reply.outputs.add(name=name, datatype="FP32", shape=[1])
    with pytest.raises(UnreadableAnswerError, match="output 'b'"):
        answer_of(reply)


def test_a_failure_within_a_stream_is_an_error() -> None:
    with pytest.raises(InferenceError, match="UNKNOWN: too wide") as caught:
        streamed_answer_of(pb.ModelStreamInferResponse(error_message="too wide"))
    assert caught.value.code == "UNKNOWN"
