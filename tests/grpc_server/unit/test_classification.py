"""The `classification` parameter: the highest elements in Triton's text form."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ferryline.grpc_server.classification import highest
from ferryline.grpc_server.errors import InvalidRequestError
from ferryline.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, infer

NUMBERS = st.floats(-9, 9, width=32)
SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32)


def test_the_highest_come_first_with_six_decimals_index_and_label() -> None:
    found = highest(SCORES, 2, by_row=True, labels=("a", "b", "c"))
    assert found.tolist() == [["0.700000:1:b", "0.200000:2:c"], ["0.500000:0:a", "0.250000:1:b"]]


def test_without_labels_of_that_number_there_is_the_index_alone() -> None:
    assert highest(SCORES, 1, by_row=True).tolist() == [["0.700000:1"], ["0.500000:0"]]
    assert highest(SCORES, 1, by_row=True, labels=("a", "b")).tolist() == [["0.700000:1"], ["0.500000:0"]]


def test_a_tensor_without_a_batch_is_one_row() -> None:
    assert highest(SCORES, 2, by_row=False).tolist() == ["0.700000:1", "0.500000:3"]


def test_whole_numbers_have_no_decimals_and_no_row_has_more_than_its_elements() -> None:
    assert highest(np.array([3, 9], np.uint8), 5, by_row=False).tolist() == ["9:1", "3:0"]
    assert highest(np.array([False, True]), 1, by_row=False).tolist() == ["1:1"]
    assert highest(np.zeros((0, 3), np.float32), 2, by_row=True).shape == (0, 2)
    assert highest(np.array([np.nan, 1.0]), 2, by_row=False).tolist() == ["1.000000:1", "nan:0"]


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(-9, 9, width=32)
    ),
    st.integers(1, 8),
)
def test_every_row_is_its_elements_sorted_downwards(array: np.ndarray, count: int) -> None:
    found = highest(array, count, by_row=True)
    assert found.shape == (len(array), min(count, array.shape[1]))
    for row, texts in zip(array.tolist(), found.tolist(), strict=True):
        indices = [int(text.split(":")[1]) for text in texts]
        assert indices == sorted(range(len(row)), key=lambda index: (-row[index], index))[:count]


def with_classes(data: bytes) -> bytes:
    """The file as the trainer writes it, which says what the scores stand for."""
    model = onnx.load_from_string(data)
    onnx.helper.set_model_props(model, {"ferryline.classes": "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"})
    return bytes(model.SerializeToString())


def digits_request(count: int) -> ModelInferRequest:
    request = ModelInferRequest(model_name="digits", raw_input_contents=[np.zeros((2, 64), "<f4").tobytes()])
    request.inputs.add(name="X", datatype="FP32", shape=[2, 64])
    request.outputs.add(name="label")
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = count
    return request


def test_a_models_classes_are_the_labels(shop: Shop) -> None:
    shop.publish("digits", with_classes(model_files.digits_classifier()))
    models = shop.follow("digits")
    request = digits_request(3)
    reply = infer(models, request)
    assert isinstance(reply, ModelInferResponse)
    label, scores = reply.outputs
    assert (label.datatype, scores.datatype, list(scores.shape)) == ("INT64", "BYTES", [2, 3])
    predicted = np.frombuffer(reply.raw_output_contents[0], "<i8")[0]
    first = reply.raw_output_contents[1][4 : 4 + reply.raw_output_contents[1][0]].decode()
    value, index, name = first.split(":")
    assert (int(index), name) == (predicted, str(predicted))
    assert 0 < float(value) <= 1

    request.outputs[1].parameters["classification"].int64_param = 0
    assert infer(models, request).outputs[1].datatype == "FP32"


@pytest.mark.parametrize("wrong", [-1, "2", True])
def test_a_count_that_is_none_is_refused(shop: Shop, wrong: object) -> None:
    shop.publish("digits", model_files.digits_classifier())
    request = digits_request(1)
    parameter = request.outputs[1].parameters["classification"]
    match wrong:
        case bool():
            parameter.bool_param = wrong
        case int():
            parameter.int64_param = wrong
        case _:
            parameter.string_param = str(wrong)
    with pytest.raises(InvalidRequestError, match="'classification' of output 'probabilities' must be"):
        infer(shop.follow("digits"), request)


def test_text_has_no_highest_elements(shop: Shop) -> None:
    shop.publish("text", model_files.identity("string", ["n"]))
    request = ModelInferRequest(model_name="text", raw_input_contents=[b"\1\0\0\0a"])
    request.inputs.add(name="x", datatype="BYTES", shape=[1])
    request.outputs.add(name="y").parameters["classification"].int64_param = 1
    with pytest.raises(InvalidRequestError, match="output 'y' is BYTES"):
        infer(shop.follow("text"), request)
