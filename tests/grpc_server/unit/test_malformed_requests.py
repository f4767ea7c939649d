"""Thousands of malformed requests: each is answered, or refused in words, and none is the server's fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ferryline.grpc_server.endpoint import Endpoint, endpoints
from ferryline.grpc_server.errors import InternalFaultError, InvalidRequestError, NotServedError, RequestError
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, float_output, inline_executor, raw_request

CASES = 4000
NAMES = ["x", "y", "a", "b", "", "X", "\0", "x" * 500, "é"]
SIZES = [0, 1, 2, 3, 4, 5, 64, -1, -(2**63), 2**31, 2**62, 2**63 - 1]
DATATYPES = ["FP32", "FP16", "BF16", "BYTES", "INT64", "BOOL", "", "fp32"]
FIELDS = [field.name for field in pb.InferTensorContents.DESCRIPTOR.fields]

Mutation = Callable[[pb.ModelInferRequest, random.Random], object]


def _any_input(request: pb.ModelInferRequest, chance: random.Random) -> pb.ModelInferRequest.InferInputTensor:
    return chance.choice(request.inputs) if request.inputs else request.inputs.add()


def _name(request: pb.ModelInferRequest, chance: random.Random) -> None:
    _any_input(request, chance).name = chance.choice(NAMES)


def _datatype(request: pb.ModelInferRequest, chance: random.Random) -> None:
    _any_input(request, chance).datatype = chance.choice(DATATYPES)


def _shape(request: pb.ModelInferRequest, chance: random.Random) -> None:
    tensor = _any_input(request, chance)
    del tensor.shape[:]
    tensor.shape.extend(chance.choices(SIZES, k=chance.choice([0, 1, 2, 2, 3, 40])))


def _raw(request: pb.ModelInferRequest, chance: random.Random) -> None:
    data = chance.randbytes(chance.choice([0, 1, 4, 15, 16, 32, 1000]))
    if request.raw_input_contents and chance.random() < 0.7:
        request.raw_input_contents[0] = data
    else:
        request.raw_input_contents.append(data)


def _no_raw(request: pb.ModelInferRequest, chance: random.Random) -> None:
    del chance, request.raw_input_contents[:]


def _contents(request: pb.ModelInferRequest, chance: random.Random) -> None:
    field = chance.choice(FIELDS)
    value = b"\xff" if field == "bytes_contents" else chance.choice([0, 1])
    getattr(_any_input(request, chance).contents, field).extend([value] * chance.choice([0, 1, 4, 8]))


def _drop(request: pb.ModelInferRequest, chance: random.Random) -> None:
    del request.inputs[chance.randrange(2) :]


def _output(request: pb.ModelInferRequest, chance: random.Random) -> None:
    request.outputs.add(name=chance.choice(NAMES))


def _model(request: pb.ModelInferRequest, chance: random.Random) -> None:
    request.model_name = chance.choice(["m", "two", "text", "", "none"])
    request.model_version = chance.choice(["", "1", "2", "-1", "9" * 99, "production"])


MUTATIONS: Sequence[Mutation] = (
    _name, _datatype, _shape, _raw, _no_raw, _contents, _drop, _output, _model,
)  # fmt: skip


@pytest.fixture
def infer(shop: Shop) -> Endpoint[pb.ModelInferRequest]:
    shop.publish("m", model_files.plus(1))
    shop.publish("two", model_files.sum_and_difference())
    shop.publish("text", model_files.identity("string", ["n"]))
    _, found = endpoints(shop.follow("m", "two", "text"), executor=inline_executor())
    return next(endpoint for endpoint in found if endpoint.name == "ModelInfer")


def outcome(infer: Endpoint[pb.ModelInferRequest], data: bytes) -> type[RequestError] | None:
    try:
        infer(data)
    except RequestError as error:
        return type(error)
    return None


def test_mutated_requests_are_refused_and_the_next_good_one_is_answered(
    infer: Endpoint[pb.ModelInferRequest],
) -> None:
    chance = random.Random(20)  # noqa: S311 - the same requests every time
    good = raw_request("m", x=np.ones((1, 4), np.float32))
    seen: dict[type[RequestError] | None, int] = {}
    for _ in range(CASES):
        request = pb.ModelInferRequest()
        request.CopyFrom(good)
        for mutate in chance.choices(MUTATIONS, k=chance.choice([1, 1, 2, 4])):
            mutate(request, chance)
        found = outcome(infer, request.SerializeToString())
        seen[found] = seen.get(found, 0) + 1
    assert set(seen) <= {None, InvalidRequestError, NotServedError}, seen
    assert seen[InvalidRequestError] > CASES / 2
    assert float_output(pb.ModelInferResponse.FromString(infer(good.SerializeToString())))[0, 0] == 2


def test_damaged_bytes_are_refused(infer: Endpoint[pb.ModelInferRequest]) -> None:
    chance = random.Random(21)  # noqa: S311 - the same bytes every time
    good = bytearray(raw_request("m", x=np.ones((1, 4), np.float32)).SerializeToString())
    seen = set()
    for _ in range(CASES):
        data = bytearray(good)
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        seen.add(outcome(infer, bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])))
    assert InternalFaultError not in seen
    assert InvalidRequestError in seen


def test_a_fault_of_ours_gives_an_id_and_no_details() -> None:
    def broken(_request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        raise RuntimeError("a secret of the server's")

    with pytest.raises(InternalFaultError) as caught:
        Endpoint("ServerLive", pb.ServerLiveRequest, broken)(b"")
    assert caught.value.fault_id in str(caught.value)
    assert "secret" not in str(caught.value)
