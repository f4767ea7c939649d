"""Streams on sockets: half closed, cancelled, not read, and drained."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import repeat

import grpc
import numpy as np
import pytest

from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.waiting import DEADLINE

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
REQUEST = raw_request("m", x=ROW).SerializeToString()
MIB = 2**20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    made.publish(model_files.plus(6), "other")
    return made


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[RunningServer]:
    with site.server("m", "other") as running:
        running.wait_until_healthy()
        yield running
        assert "Traceback" not in running.log(), running.log()


async def test_a_stream_half_closed_gets_all_its_answers(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.stream_stream(METHOD)(iter([REQUEST] * 500))
        replies = [pb.ModelStreamInferResponse.FromString(data) async for data in call]
    assert len(replies) == 500
    assert all(float_output(reply.infer_response)[0, 0] == 6 for reply in replies)


async def test_a_cancelled_stream_ends_and_the_next_one_works(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        for _ in range(20):
            call = channel.stream_stream(METHOD)()
            for _ in range(5):
                await call.write(REQUEST)
            await call.read()
            call.cancel()
        call = channel.stream_stream(METHOD)(iter([REQUEST]))
        assert len([data async for data in call]) == 1


def test_a_caller_that_does_not_read_is_read_no_further_than_it_can_be_answered(
    server: RunningServer,
) -> None:
    large = raw_request("m", x=np.ones((MIB // 16, 4), np.float32)).SerializeToString()
    taken = 0

    def requests() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(200):
            taken += 1
            yield large

    with grpc.insecure_channel(server.address, [("grpc.http2.bdp_probe", 0)]) as channel:
        call = channel.stream_stream(METHOD)(requests(), timeout=DEADLINE)
        next(call)
        assert server.wait_until_still(lambda: taken, "other") < 100
        assert server.plus() == 5, "others are served meanwhile"
        call.cancel()
    assert server.plus() == 5


async def test_packed_requests_that_nobody_reads_the_answers_of_are_taken_one_by_one(
    server: RunningServer,
) -> None:
    zeros = raw_request("m", x=np.zeros((MIB // 4, 4), np.float32)).SerializeToString()  # 4 MiB, in 4 KiB
    name = 'nv_inference_request_success{model="m",version="1"}'
    before = server.metrics()[name]
    async with grpc.aio.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        call = channel.stream_stream(METHOD)(repeat(zeros, 200))
        still = asyncio.to_thread(server.wait_until_still, lambda: server.metrics()[name], "other")
        assert await still - before < 100, "they count for what is in them"
        call.cancel()


async def test_a_drained_server_answers_what_it_read_and_ends_its_streams(site: Site) -> None:
    with site.server(flags=["--drain-seconds", "86400"]) as server:
        await asyncio.to_thread(server.wait_until_healthy)
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = channel.stream_stream(METHOD)()
            await call.write(REQUEST)
            await call.read()
            server.ask_to_stop()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert "the server is stopping" in str(await call.details())
        assert await asyncio.to_thread(server.wait) == 0, "an open stream does not use up the time to drain"
        assert "Traceback" not in server.log()
