"""The handlers on real sessions: right answers, where they come from, and every kind of wrong request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from ferryline.grpc_server import replies
from ferryline.grpc_server.errors import InvalidRequestError, NotReadyError, NotServedError
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.execution.policy import ExecutionPolicy
from ferryline.grpc_server.handlers import InferenceHandlers
from ferryline.grpc_server.inference import InferenceHandler
from ferryline.grpc_server.models import Models
from ferryline.protos import grpc_service_pb2 as pb
from ferryline.registry.documents import Lineage, TrainingRecord
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, float_output, raw_request, text_request, wait_until_version
from tests.grpc_server.shop import infer as infer_of

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def infer(shop: Shop, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return infer_of(shop.follow(request.model_name), request)


# --- right requests -------------------------------------------------------------------------------


def test_a_raw_request_is_answered_raw(shop: Shop) -> None:
    shop.publish("m", model_files.plus(10))
    reply = infer(shop, raw_request("m", x=ROWS))
    np.testing.assert_array_equal(float_output(reply), ROWS + 10)
    assert (reply.model_name, reply.model_version) == ("m", "1")
    assert not reply.outputs[0].HasField("contents")


def test_a_typed_request_is_answered_raw(shop: Shop) -> None:
    shop.publish("m", model_files.plus(10))
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=ROWS.shape)
    tensor.contents.fp32_contents.extend(ROWS.ravel().tolist())
    np.testing.assert_array_equal(float_output(infer(shop, request)), ROWS + 10)


def test_nan_and_infinity_are_numbers_like_others(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    row = np.array([[np.nan, np.inf, -np.inf, 0]], dtype=np.float32)
    np.testing.assert_array_equal(float_output(infer(shop, raw_request("m", x=row))), row + 1)


def test_an_empty_batch_gives_an_empty_answer(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    assert float_output(infer(shop, raw_request("m", x=ROWS[:0]))).shape == (0, 4)


@pytest.mark.parametrize(
    ("dtype", "datatype", "raw"),
    [
        ("bool", "BOOL", b"\x00\x01"),
        ("uint8", "UINT8", b"\x00\xff"),
        ("uint16", "UINT16", b"\x01\x00\xff\xff"),
        ("uint32", "UINT32", b"\x01\x00\x00\x00\xff\xff\xff\xff"),
        ("uint64", "UINT64", bytes(8) + b"\xff" * 8),
        ("int8", "INT8", b"\x80\x7f"),
        ("int16", "INT16", b"\x00\x80\xff\x7f"),
        ("int32", "INT32", b"\x00\x00\x00\x80\xff\xff\xff\x7f"),
        ("int64", "INT64", bytes(7) + b"\x80" + b"\xff" * 7 + b"\x7f"),
        ("float16", "FP16", np.array([1.5, np.nan], "<f2").tobytes()),
        ("float32", "FP32", np.array([1.5, np.nan], "<f4").tobytes()),
        ("float64", "FP64", np.array([1.5, np.inf], "<f8").tobytes()),
        ("string", "BYTES", b"\x03\x00\x00\x00d\xc3\xa9\x00\x00\x00\x00"),
    ],
)
def test_every_datatype_goes_through_a_model_unchanged(
    shop: Shop, dtype: str, datatype: str, raw: bytes
) -> None:
    shop.publish("same", model_files.identity(dtype, ["n"]))
    request = pb.ModelInferRequest(model_name="same", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype=datatype, shape=[2])
    reply = infer(shop, request)
    assert reply.outputs[0].datatype == datatype
    assert list(reply.raw_output_contents) == [raw]


def two_inputs(rows_a: int = 2, rows_b: int = 2) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="two")
    for name, rows, first in (("b", rows_b, 10), ("a", rows_a, 100)):
        array = np.arange(first, first + rows * 3, dtype=np.int64).reshape(rows, 3)
        request.inputs.add(name=name, datatype="INT64", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def test_inputs_are_told_apart_by_name_and_not_by_order(shop: Shop) -> None:
    shop.publish("two", model_files.sum_and_difference())
    reply = infer(shop, two_inputs())
    assert [tensor.name for tensor in reply.outputs] == ["sum", "difference", "both"]
    assert np.frombuffer(reply.raw_output_contents[1], np.int64).tolist() == [90] * 6


def test_only_the_requested_outputs_come_in_the_order_asked_for(shop: Shop) -> None:
    shop.publish("two", model_files.sum_and_difference())
    request = two_inputs()
    request.outputs.add(name="difference")
    request.outputs.add(name="sum")
    reply = infer(shop, request)
    assert [tensor.name for tensor in reply.outputs] == ["difference", "sum"]
    assert np.frombuffer(reply.raw_output_contents[0], np.int64).tolist() == [90] * 6


def test_the_exported_classifier_gives_labels_and_probabilities(shop: Shop) -> None:
    shop.publish("digits", model_files.digits_classifier())
    reply = infer(shop, raw_request("digits", X=np.zeros((3, 64), np.float32)))
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in reply.outputs] == [
        ("label", "INT64", [3]),
        ("probabilities", "FP32", [3, 10]),
    ]
    np.testing.assert_allclose(float_output(reply, "probabilities").sum(axis=1), 1, rtol=1e-5)


# --- where an answer comes from -------------------------------------------------------------------


def test_a_reply_gives_back_id_and_parameters_and_says_where_it_comes_from(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(replies, "time", SimpleNamespace(time=lambda: newest.timestamp() + 100))
    lineage = Lineage(topic="t", offsets=(), records=1, newest_event_time=newest)
    shop.publish("m", model_files.plus(1), TrainingRecord(lineage=lineage))
    request = raw_request("m", x=ROWS)
    request.id = "call-7"
    request.parameters["priority"].int64_param = 3
    request.parameters["ferry_digest"].string_param = "a caller's own invention"
    reply = infer(shop, request)
    assert reply.id == "call-7"
    assert reply.parameters["priority"].int64_param == 3
    assert reply.parameters["ferry_generation"].int64_param == 1
    assert reply.parameters["ferry_channel"].string_param == "production"
    assert reply.parameters["ferry_digest"].string_param == shop.registry.versions("m").get(1).blob.digest
    assert reply.parameters["ferry_data_age_seconds"].double_param == 100


def test_an_unknown_data_age_is_left_out(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    request = raw_request("m", x=ROWS)
    request.parameters["ferry_data_age_seconds"].double_param = 1
    assert "ferry_data_age_seconds" not in infer(shop, request).parameters


def test_a_version_can_be_named_while_it_is_warm(shop: Shop) -> None:
    models = served_versions(shop, 3)
    for version, asked in ((3, ""), (3, "3"), (2, "2")):
        reply = infer_of(models, raw_request("m", version=asked, x=ROWS))
        assert (reply.model_version, reply.parameters["ferry_generation"].int64_param) == (
            str(version),
            version,
        )
        np.testing.assert_array_equal(float_output(reply), ROWS + version)
    with pytest.raises(NotServedError, match="model 'm' has no warm version 1; warm here: 3, 2"):
        infer_of(models, raw_request("m", version="1", x=ROWS))


def test_a_rollback_answers_with_the_older_version_under_a_newer_generation(shop: Shop) -> None:
    models = served_versions(shop, 2)
    shop.registry.rollback("m")
    wait_until_version(models.get("m"), 1)
    reply = infer_of(models, raw_request("m", x=ROWS))
    assert (reply.model_version, reply.parameters["ferry_generation"].int64_param) == ("1", 3)
    assert models.get("m").warm_versions == [1, 2]


def served_versions(shop: Shop, count: int) -> Models:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m")
    for number in range(2, count + 1):
        shop.publish("m", model_files.plus(number))
        wait_until_version(models.get("m"), number)
    return models


@pytest.mark.parametrize("version", ["0X1", "-1", "V1", "1.", "٣", "9" * 11, "9" * 5000, " "])
def test_what_is_no_version_number_is_an_invalid_request(shop: Shop, version: str) -> None:
    shop.publish("m", model_files.plus(1))
    with pytest.raises(InvalidRequestError, match="is no version"):
        infer(shop, raw_request("m", version=version, x=ROWS))


def test_an_unknown_model_is_answered_with_what_is_served(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    shop.publish("two", model_files.sum_and_difference())
    with pytest.raises(NotServedError, match="no model 'n' here; this server serves 'm', 'two'"):
        infer_of(shop.follow("m", "two"), raw_request("n", x=ROWS))


def test_a_model_not_published_yet_says_that_nothing_is_promoted(shop: Shop) -> None:
    models = shop.follow("later", wait=False)
    with pytest.raises(NotReadyError, match=r"following channel 'production'; nothing is promoted there yet"):
        infer_of(models, raw_request("later", x=ROWS))


# --- wrong requests -------------------------------------------------------------------------------

Change = Callable[[pb.ModelInferRequest], object]


def _rename(request: pb.ModelInferRequest) -> None:
    request.inputs[0].name = "X"


def _twice(request: pb.ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _missing(request: pb.ModelInferRequest) -> None:
    del request.inputs[:]
    del request.raw_input_contents[:]


def _datatype(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP64"


def _shape(*shape: int) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        del request.inputs[0].shape[:]
        request.inputs[0].shape.extend(shape)

    return change


def _mixed(request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.append(1)


def _short(request: pb.ModelInferRequest) -> None:
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]


def _surplus_raw(request: pb.ModelInferRequest) -> None:
    request.raw_input_contents.append(b"")


def _typed_short(request: pb.ModelInferRequest) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1.0] * 7)


def _no_data(request: pb.ModelInferRequest) -> None:
    del request.raw_input_contents[:]


def _output(*names: str, parameter: str = "") -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        for name in names:
            output = request.outputs.add(name=name)
            if parameter:
                output.parameters[parameter].int64_param = 1

    return change


def _shared_memory(request: pb.ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename, r"no input 'X'; the model takes 'x'"),
        (_twice, r"input 'x' is there twice"),
        (_missing, r"missing input 'x'; the model takes 'x'"),
        (_datatype, r"input 'x' is 'FP64', expected 'FP32'"),
        (_shape(2, 5), r"input 'x' has shape \[2, 5\], expected \[-1, 4\] \(-1 takes any size\)"),
        (_shape(8), r"input 'x' has shape \[8\], expected \[-1, 4\]"),
        (_shape(-2, 4), r"input 'x' has shape \[-2, 4\]"),
        (_shape(3, 4), r"input 'x' has 32 bytes of raw data, and FP32 \[3, 4\] takes 48"),
        (_shape(2**62, 4), r"input 'x' has 32 bytes of raw data"),
        (_shape(*[1] * 1000), r"input 'x' has shape .* and 992 more, expected"),
        (_short, r"input 'x' has 31 bytes of raw data, and FP32 \[2, 4\] takes 32"),
        (_mixed, r"input 'x' has contents beside raw_input_contents"),
        (_surplus_raw, r"there are 2 raw_input_contents for 1 inputs"),
        (_typed_short, r"input 'x' has 7 elements, and FP32 \[2, 4\] takes 8"),
        (_no_data, r"input 'x' has 0 elements, and FP32 \[2, 4\] takes 8"),
        (_output("z"), r"no output 'z'; the model gives 'y'"),
        (_output("y", "y"), r"output 'y' is requested twice"),
        (
            _output("y", parameter="shared_memory_region"),
            r"output 'y' has the parameter 'shared_memory_region'",
        ),
        (_shared_memory, r"input 'x' has the parameter 'shared_memory_region'"),
    ],
)
def test_a_wrong_request_is_told_what_came_and_what_was_expected(
    shop: Shop, change: Change, words: str
) -> None:
    shop.publish("m", model_files.plus(1))
    request = raw_request("m", x=ROWS)
    change(request)
    with pytest.raises(InvalidRequestError, match=words):
        infer(shop, request)


def test_inputs_that_do_not_fit_each_other_are_the_callers_fault(shop: Shop) -> None:
    shop.publish("two", model_files.sum_and_difference())
    with pytest.raises(InvalidRequestError, match=r"'b' \[3, 3\], 'a' \[2, 3\]; the server's log has more"):
        infer(shop, two_inputs(rows_a=2, rows_b=3))


def test_a_long_name_is_not_repeated_in_full(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    request = raw_request("m", x=ROWS)
    request.inputs[0].name = "x" * 1_000_000
    with pytest.raises(InvalidRequestError) as caught:
        infer(shop, request)
    assert len(str(caught.value)) < 300


# --- the other RPCs -------------------------------------------------------------------------------


def test_metadata_tells_the_contract_and_the_warm_versions(shop: Shop) -> None:
    models = served_versions(shop, 2)
    found = InferenceHandlers(models).model_metadata(pb.ModelMetadataRequest(name="m"))
    assert (found.name, found.platform, list(found.versions)) == ("m", "onnxruntime_onnx", ["1", "2"])
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [("x", "FP32", [-1, 4])]
    assert [(t.name, t.datatype, list(t.shape)) for t in found.outputs] == [("y", "FP32", [-1, 4])]


def test_the_server_names_itself(shop: Shop) -> None:
    found = InferenceHandlers(shop.follow()).server_metadata(pb.ServerMetadataRequest())
    assert found.name == "ferryline"
    assert found.version[0].isdigit()


def test_readiness_waits_for_every_model_and_ends_with_a_drain(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m", "later", wait=False)
    wait_until_version(models.get("m"), 1)
    handlers = InferenceHandlers(models)

    def ready() -> tuple[bool, bool, bool]:
        return (
            handlers.server_ready(pb.ServerReadyRequest()).ready,
            handlers.model_ready(pb.ModelReadyRequest(name="m")).ready,
            handlers.model_ready(pb.ModelReadyRequest(name="later")).ready,
        )

    assert ready() == (False, True, False)
    assert not handlers.model_ready(pb.ModelReadyRequest(name="m", version="9")).ready
    assert not handlers.model_ready(pb.ModelReadyRequest(name="unknown")).ready
    shop.publish("later", model_files.plus(1))
    wait_until_version(models.get("later"), 1)
    assert ready() == (True, True, True)
    handlers.drain()
    assert ready() == (False, False, False)
    assert handlers.server_live(pb.ServerLiveRequest()).live


def test_sizes_that_no_data_bound_are_refused(shop: Shop) -> None:
    shop.publish("m", model_files.identity("float32", ["n", "k"]))
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b""])
    request.inputs.add(name="x", datatype="FP32", shape=[2**60, 0])
    with pytest.raises(InvalidRequestError, match=r"'x' has no elements and shape \[115"):
        infer(shop, request)
    request.inputs[0].shape[:] = [8, 0]
    assert list(infer(shop, request).outputs[0].shape) == [8, 0]


def test_much_text_is_read_beside_the_event_loop(shop: Shop) -> None:
    shop.publish("m", model_files.identity("string", ["n"]))
    request = text_request("m", ["ä" * 100] * 4000)
    models = shop.follow("m")
    executor = Executor(ExecutionPolicy(inline_ns=10**15))

    async def ask() -> pb.ModelInferResponse:
        answer = InferenceHandler(models, executor)(request)
        assert isinstance(answer, Awaitable)
        return await answer

    reply = asyncio.run(ask())
    assert reply.raw_output_contents == request.raw_input_contents
