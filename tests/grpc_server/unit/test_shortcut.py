"""The short way gives what the long way gives, for every request, or leaves it to it."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from ferryline.grpc_server.endpoint import Endpoint, endpoints
from ferryline.grpc_server.errors import RequestError
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.execution.policy import ExecutionPolicy
from ferryline.grpc_server.inference import InferenceHandler
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.shortcut import KEPT_HEADS, LONGEST_HEAD, PlainShortcut
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, float_output, infer, raw_request, wait_until_version

ROW = np.array([[1, 2, 3, 4]], np.float32)
INLINE = Executor(ExecutionPolicy(inline_ns=10**15))
Answer = Callable[[bytes], bytes | None]


@pytest.fixture
def models(shop: Shop) -> Models:
    shop.publish("m", model_files.plus(1))
    shop.publish("flags", model_files.identity("bool", ["n"]))
    shop.publish("two", model_files.sum_and_difference())
    return shop.follow("m", "flags", "two")


def learnt(models: Models, request: pb.ModelInferRequest) -> PlainShortcut:
    """A shortcut after the request was answered the long way."""
    shortcut = PlainShortcut(models, INLINE)
    infer(models, request)
    shortcut.learn(request.SerializeToString(), request)
    return shortcut


def test_a_second_plain_request_takes_the_short_way_to_the_same_reply(models: Models) -> None:
    shortcut = learnt(models, raw_request("m", x=ROW))
    other = raw_request("m", x=ROW * 7)
    data = shortcut.answer(other.SerializeToString())
    assert data is not None
    assert pb.ModelInferResponse.FromString(data) == infer(models, other)
    assert models.get("m").versions()[1].success == 3


@pytest.mark.parametrize("rows", [1, 8, 31, 32, 1023, 1024, 9000])
def test_replies_of_every_length_are_whole(models: Models, rows: int) -> None:
    request = raw_request("m", x=np.ones((rows, 4), np.float32))
    data = learnt(models, request).answer(request.SerializeToString())
    assert data is not None
    np.testing.assert_array_equal(float_output(pb.ModelInferResponse.FromString(data)), np.full((rows, 4), 2))


def test_an_unseen_head_goes_the_long_way(models: Models) -> None:
    shortcut = PlainShortcut(models, INLINE)
    assert shortcut.answer(raw_request("m", x=ROW).SerializeToString()) is None
    assert shortcut.answer(b"") is None


def _identified(request: pb.ModelInferRequest) -> None:
    request.id = "7"


def _versioned(request: pb.ModelInferRequest) -> None:
    request.model_version = "1"


def _parameter(request: pb.ModelInferRequest) -> None:
    request.parameters["a"].bool_param = True


def _tensor_parameter(request: pb.ModelInferRequest) -> None:
    request.inputs[0].parameters["a"].bool_param = True


def _output(request: pb.ModelInferRequest) -> None:
    request.outputs.add(name="y")


@pytest.mark.parametrize("change", [_identified, _versioned, _parameter, _tensor_parameter, _output])
def test_what_is_not_plain_goes_the_long_way(
    models: Models, change: Callable[[pb.ModelInferRequest], None]
) -> None:
    request = raw_request("m", x=ROW)
    change(request)
    assert learnt(models, request).answer(request.SerializeToString()) is None


def test_booleans_go_the_long_way_since_their_bytes_are_normalised(models: Models) -> None:
    request = pb.ModelInferRequest(model_name="flags", raw_input_contents=[b"\x02"])
    request.inputs.add(name="x", datatype="BOOL", shape=[1])
    assert learnt(models, request).answer(request.SerializeToString()) is None


def test_data_that_do_not_come_last_go_the_long_way(models: Models) -> None:
    request = raw_request("m", x=ROW)
    raw = pb.ModelInferRequest(raw_input_contents=request.raw_input_contents).SerializeToString()
    rest = request.SerializeToString().removesuffix(raw)
    shortcut = PlainShortcut(models, INLINE)
    shortcut.learn(raw + rest, pb.ModelInferRequest.FromString(raw + rest))
    assert shortcut.answer(raw + rest) is None


def test_a_swap_makes_the_next_request_go_the_long_way(shop: Shop, models: Models) -> None:
    request = raw_request("m", x=ROW)
    shortcut = learnt(models, request)
    shop.publish("m", model_files.plus(2))
    wait_until_version(models.get("m"), 2)
    assert shortcut.answer(request.SerializeToString()) is None
    shortcut.learn(request.SerializeToString(), request)
    data = shortcut.answer(request.SerializeToString())
    assert data is not None
    reply = pb.ModelInferResponse.FromString(data)
    assert (reply.model_version, float_output(reply)[0, 0]) == ("2", 3)


def test_what_is_kept_is_bounded(models: Models) -> None:
    shortcut = PlainShortcut(models, INLINE)
    for rows in range(1, KEPT_HEADS + 10):
        request = raw_request("m", x=np.ones((rows, 4), np.float32))
        shortcut.learn(request.SerializeToString(), request)
    assert len(shortcut._by_length) <= KEPT_HEADS


def test_with_and_without_the_shortcut_every_request_has_the_same_outcome(models: Models) -> None:
    chance = random.Random(5)  # noqa: S311 - the same requests every time
    _, rpcs = endpoints(models, executor=INLINE)
    short = next(rpc for rpc in rpcs if rpc.name == "ModelInfer")
    long = Endpoint("ModelInfer", pb.ModelInferRequest, InferenceHandler(models, INLINE))
    seeds = [raw_request("m", x=np.ones((rows, 4), np.float32)).SerializeToString() for rows in (1, 1, 2)]
    answered = 0
    for _ in range(3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice([0, 0, 1, 2])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        left, right = outcome(short, bytes(data)), outcome(long, bytes(data))
        assert left == right, bytes(data)
        answered += left.startswith("answer")
    assert answered > 1000


def outcome(endpoint: Endpoint[pb.ModelInferRequest], data: bytes) -> str:
    try:
        reply = pb.ModelInferResponse.FromString(endpoint(data))
    except RequestError as error:
        return f"{type(error).__name__}: {error}"
    return f"answer {reply}"


def test_a_head_as_long_as_a_caller_likes_is_not_kept(models: Models) -> None:
    request = raw_request("m", x=ROW)
    junk = pb.ModelInferRequest(model_name="x" * LONGEST_HEAD)
    twice = junk.SerializeToString() + request.SerializeToString()
    assert pb.ModelInferRequest.FromString(twice) == request  # the last of the two names counts
    shortcut = PlainShortcut(models, INLINE)
    infer(models, request)
    shortcut.learn(twice, request)
    assert shortcut.answer(twice) is None
    shortcut.learn(request.SerializeToString(), request)
    assert shortcut.answer(request.SerializeToString()) is not None


def test_a_model_that_is_gone_is_not_kept_for_its_requests(models: Models) -> None:
    class _Model:
        current = models.get("m").current
        shadow = None

    request, model = raw_request("m", x=ROW), _Model()
    infer(models, request)
    shortcut = PlainShortcut({"m": model}, INLINE)  # type: ignore[arg-type]
    shortcut.learn(request.SerializeToString(), request)
    assert shortcut.answer(request.SerializeToString()) is not None
    gone = weakref.ref(model)
    del model
    shortcut._models = {}  # type: ignore[assignment]  # as an unloaded model leaves the table
    assert gone() is None
    assert shortcut.answer(request.SerializeToString()) is None
