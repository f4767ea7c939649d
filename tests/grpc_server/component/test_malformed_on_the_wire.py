"""Malformed requests over both transports are answered in words; packed ones are unpacked, up to a limit."""

from __future__ import annotations

import random
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.malformed import send_over_grpc, send_over_http
from tests.grpc_server.running_server import RunningServer
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.sizes import sized
from tests.support.waiting import DEADLINE

EACH = sized(500, 5000)
MIB = 2**20
BEYOND = 20 * MIB
"""More than the server takes, once unpacked."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    site.publish(model_files.sum_and_difference(), "two")
    site.publish(model_files.identity("string", ["n"]), "text")
    with site.server("m", "two", "text", flags=["--max-message-mib", "4"]) as running:
        running.wait_until_healthy()
        yield running
        assert "Traceback" not in running.log(), running.log()


def test_over_grpc(server: RunningServer) -> None:
    seen = send_over_grpc(server, random.Random(50), EACH)  # noqa: S311 - the same requests every time
    assert seen[grpc.StatusCode.INVALID_ARGUMENT] > EACH / 2, seen
    assert server.plus() == 5


def test_over_http(server: RunningServer) -> None:
    seen = send_over_http(server, random.Random(51), EACH)  # noqa: S311 - likewise
    assert seen[400] > EACH / 2, seen
    assert server.plus() == 5


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_what_is_too_large_once_unpacked_is_refused(server: RunningServer, packing: grpc.Compression) -> None:
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(
            bytes(BEYOND), timeout=DEADLINE, compression=packing
        )
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than this server takes, once unpacked" in call.details()
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        # in a stream it costs the request its answer, and not the others theirs
        fine = raw_request("m", x=np.ones((1, 4), np.float32)).SerializeToString()
        answers = list(stream(iter([fine, bytes(BEYOND), fine]), timeout=DEADLINE, compression=packing))
    assert ["larger than this server" in answer.error_message for answer in answers] == [False, True, False]
    assert server.plus() == 5


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_packed_requests_are_answered(server: RunningServer, packing: grpc.Compression) -> None:
    infer = server.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )
    for rows in (100, 100_000):  # unpacked on the event loop, and on a thread
        request = raw_request("m", x=np.ones((rows, 4), np.float32)).SerializeToString()
        reply = infer(request, timeout=DEADLINE, compression=packing)
        np.testing.assert_array_equal(float_output(reply), np.full((rows, 4), 6, np.float32))
