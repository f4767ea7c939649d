"""Malformed requests drawn by lot, over both transports, and how each is answered."""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import grpc
import numpy as np

from tests.grpc_server.running_server import RunningServer
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE

LONG = "x" * 3000
NAMES = ["x", "y", "a", "b", "", "\0", LONG, "é"]
SIZES = [0, 1, 2, 3, 4, 5, 64, -1, -(2**63), 2**31, 2**62, 2**63 - 1]
DATATYPES = ["FP32", "FP16", "BF16", "BYTES", "INT64", "BOOL", "", LONG]
FINE = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def send_over_grpc(server: RunningServer, chance: random.Random, count: int) -> Counter[grpc.StatusCode]:
    """Send so many; returns how often each code came, of which all but OK came with words."""
    infer = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    seen: Counter[grpc.StatusCode] = Counter()
    for _ in range(count):
        call = infer.future(mutated_message(chance), timeout=DEADLINE)
        code = call.code()  # waits for the end of the call
        seen[code] += 1
        assert code is grpc.StatusCode.OK or (code in FINE and len(call.details()) > 10), call.details()
    return seen


def send_over_http(server: RunningServer, chance: random.Random, count: int) -> Counter[int]:
    """Send so many; returns how often each status came, of which all but 200 came with words."""
    seen: Counter[int] = Counter()
    with closing(http.client.HTTPConnection(server.http_address, timeout=DEADLINE)) as connection:
        for _ in range(count):
            path, data, headers = mutated_body(chance)
            connection.request("POST", path, data, headers)
            reply = connection.getresponse()
            document = json.loads(reply.read() or b"{}") if reply.status != 200 else reply.read()
            assert reply.status in {200, 400, 404}, (path, data, headers, document)
            assert reply.status == 200 or len(document["error"]) > 10
            seen[reply.status] += 1
    return seen


def mutated_message(chance: random.Random) -> bytes:
    request = raw_request("m", x=np.ones((chance.choice([1, 1, 3]), 4), np.float32))
    tensor = request.inputs[0]
    mutations: list[Callable[[], object]] = [
        lambda: setattr(tensor, "name", chance.choice(NAMES)),
        lambda: setattr(tensor, "datatype", chance.choice(DATATYPES)),
        lambda: tensor.shape.__setitem__(
            slice(None), chance.choices(SIZES, k=chance.choice([0, 1, 2, 3, 40]))
        ),
        lambda: request.raw_input_contents.append(chance.randbytes(chance.choice([0, 1, 16, 4096]))),
        lambda: request.ClearField("raw_input_contents"),
        lambda: tensor.contents.fp32_contents.extend([1.0] * chance.choice([1, 4, 8])),
        lambda: tensor.contents.bytes_contents.append(b"\xff"),
        lambda: request.inputs.add(name=chance.choice(NAMES)),
        lambda: request.outputs.add(name=chance.choice(NAMES)),
        lambda: request.outputs.add(name="y").parameters.get_or_create("classification"),
        lambda: setattr(request, "model_name", chance.choice(["m", "two", "text", "", LONG])),
        lambda: setattr(request, "model_version", chance.choice(["", "1", "7", "-1", "9" * 99, LONG])),
    ]
    for mutate in chance.choices(mutations, k=chance.choice([1, 1, 2, 4])):
        mutate()
    data = bytearray(request.SerializeToString())
    if chance.random() < 0.3 and data:
        data = data[: chance.randrange(len(data))]
    if chance.random() < 0.2 and data:
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def mutated_body(chance: random.Random) -> tuple[str, bytes, dict[str, str]]:
    request, path, headers = mutated_document(chance)
    data = json.dumps(request).encode()
    if chance.random() < 0.2:
        data = data[: chance.randrange(len(data))]
    if chance.random() < 0.1:
        data += chance.randbytes(8)
    return path, data, headers


def mutated_document(chance: random.Random) -> tuple[dict[str, Any], str, dict[str, str]]:
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [[1, 2, 3, 4]]}
    request: dict[str, Any] = {"inputs": [tensor]}
    odd: list[Any] = [None, 1, -1, "x", [], {}, [[]], True, 1e300, 2**63, LONG, [1, [2]], ["a"], [None] * 4]
    path, headers = "/v2/models/m/infer", {}
    for _ in range(chance.choice([1, 1, 2, 3])):
        match chance.randrange(8):
            case 0:
                tensor[chance.choice(["name", "datatype", "shape", "data", "parameters"])] = chance.choice(
                    odd
                )
            case 1:
                tensor.pop(chance.choice(["name", "datatype", "shape", "data"]), None)
            case 2:
                request[chance.choice(["id", "inputs", "outputs", "parameters"])] = chance.choice(odd)
            case 3:
                tensor["shape"] = chance.choices(SIZES, k=chance.choice([0, 1, 2, 3, 40]))
            case 4:
                tensor["parameters"] = {"binary_data_size": chance.choice([*odd, 4, 16, 10**9])}
                tensor.pop("data", None)
            case 5:
                headers["Inference-Header-Content-Length"] = chance.choice(["0", "5", "-1", "x", "9" * 9, ""])
            case 6:
                request["outputs"] = [
                    {"name": chance.choice(NAMES), "parameters": {"classification": chance.choice(odd)}}
                ]
            case _:
                path = chance.choice(
                    ["/v2/models/two/infer", "/v2/models/m/versions/x/infer", "/v2/models/%FF/infer"]
                )
    return request, path, headers
