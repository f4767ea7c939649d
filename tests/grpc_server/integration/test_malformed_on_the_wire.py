"""Ten thousand malformed requests over both transports: answered in words, the server alive and no larger."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ServerProcess, Site
from tests.grpc_server.shop import float_output, raw_request

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

EACH = 5000
MIB = 2**20
LONG = "x" * 3000
NAMES = ["x", "y", "a", "b", "", "\0", LONG, "é"]
SIZES = [0, 1, 2, 3, 4, 5, 64, -1, -(2**63), 2**31, 2**62, 2**63 - 1]
DATATYPES = ["FP32", "FP16", "BF16", "BYTES", "INT64", "BOOL", "", LONG]
FINE = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    site.publish(model_files.sum_and_difference(), "two")
    site.publish(model_files.identity("string", ["n"]), "text")
    with site.server("m", "two", "text") as running:
        running.wait_until_healthy()
        yield running


def memory(server: ServerProcess) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


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


def test_over_grpc(server: ServerProcess) -> None:
    chance = random.Random(50)  # noqa: S311 - the same requests every time
    infer = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    seen: Counter[object] = Counter()

    def send(count: int) -> None:
        for _ in range(count):
            call = infer.future(mutated_message(chance), timeout=10)
            code = call.code()  # waits for the end of the call
            seen[code] += 1
            assert code is grpc.StatusCode.OK or (code in FINE and len(call.details()) > 10), call.details()

    send(500)
    before = memory(server)
    send(EACH - 500)
    assert seen[grpc.StatusCode.INVALID_ARGUMENT] > EACH / 2, seen
    assert server.plus() == 5
    assert memory(server) - before < 16 * MIB


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


def test_over_http(server: ServerProcess) -> None:
    chance = random.Random(51)  # noqa: S311 - the same requests every time
    connection = http.client.HTTPConnection(server.http_address, timeout=10)
    seen: Counter[int] = Counter()

    def send(count: int) -> None:
        for _ in range(count):
            path, data, headers = mutated_body(chance)
            connection.request("POST", path, data, headers)
            reply = connection.getresponse()
            document = json.loads(reply.read() or b"{}") if reply.status != 200 else reply.read()
            assert reply.status in {200, 400, 404}, (path, data, headers, document)
            assert reply.status == 200 or len(document["error"]) > 10
            seen[reply.status] += 1

    send(500)
    before = memory(server)
    send(EACH - 500)
    connection.close()
    assert seen[400] > EACH / 2, seen
    assert server.plus() == 5
    assert memory(server) - before < 16 * MIB


# --- huge ones -----------------------------------------------------------------------------------

HUGE = 40 * MIB
"""Less than the server takes, so that it reads all of it."""
BEYOND = 300 * MIB
"""More than it takes, once unpacked; packed it is a few hundred KiB."""


def peak_memory(server: ServerProcess, send: Callable[[], object], times: int) -> int:
    """The most memory that the server had, as it is told after each."""
    peak = 0
    for _ in range(times):
        send()
        peak = max(peak, memory(server))
    return peak


@pytest.mark.parametrize("packed", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_huge_ones_over_grpc_leave_nothing_behind(server: ServerProcess, packed: grpc.Compression) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def send() -> None:
            assert infer.future(bytes(HUGE), timeout=60, compression=packed).code() in FINE

        send()
        before = memory(server)
        assert peak_memory(server, send, 12) - before < 4 * HUGE
    assert server.plus() == 5


def test_huge_ones_over_http_leave_nothing_behind(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(server.http_address, timeout=60)

    def send() -> None:
        connection.request("POST", "/v2/models/m/infer", bytes(HUGE))
        reply = connection.getresponse()
        assert (reply.status, len(reply.read()) > 10) == (400, True)

    send()
    before = memory(server)
    assert peak_memory(server, send, 12) - before < 4 * HUGE
    connection.close()
    assert server.plus() == 5


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_what_is_too_large_once_unpacked_is_refused_and_never_unpacked_whole(
    server: ServerProcess, packing: grpc.Compression
) -> None:
    before = memory(server)
    peaks: list[int] = [before]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            peaks.append(memory(server))

    watching = threading.Thread(target=watch)
    watching.start()
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(
            bytes(BEYOND), timeout=60, compression=packing
        )
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than this server takes, once unpacked" in call.details()
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        # in a stream it costs the request its answer, and not the others theirs
        fine = raw_request("m", x=np.ones((1, 4), np.float32)).SerializeToString()
        answers = list(stream(iter([fine, bytes(BEYOND), fine]), timeout=60, compression=packing))
    ended.set()
    watching.join()
    assert ["larger than this server" in answer.error_message for answer in answers] == [False, True, False]
    assert max(peaks) - before < BEYOND, (max(peaks) - before) / MIB
    assert server.plus() == 5


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_packed_requests_are_answered(server: ServerProcess, packing: grpc.Compression) -> None:
    infer = server.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )
    for rows in (100, 100_000):  # unpacked on the event loop, and on a thread
        request = raw_request("m", x=np.ones((rows, 4), np.float32)).SerializeToString()
        reply = infer(request, timeout=10, compression=packing)
        np.testing.assert_array_equal(float_output(reply), np.full((rows, 4), 6, np.float32))
