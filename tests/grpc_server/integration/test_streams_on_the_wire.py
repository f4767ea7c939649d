"""Streams between processes: cut, abandoned, not read, killed, and drained."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import repeat

import grpc
import numpy as np
import psutil
import pytest

from protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ROW, ServerProcess, Site
from tests.grpc_server.shop import float_output, raw_request, wait_until_still

pytestmark = pytest.mark.integration

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
REQUEST = raw_request("m", x=ROW).SerializeToString()
MIB = 2**20

ENDLESS_CALLER = """
import itertools, sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
for number, _ in enumerate(stream(itertools.repeat(bytes.fromhex(sys.argv[2])))):
    if number == 100:
        print("streaming", flush=True)
"""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    with site.server() as running:
        running.wait_until_healthy()
        yield running
        assert "Traceback" not in running.log()


def successes(server: ServerProcess) -> float:
    return server.metrics()['nv_inference_request_success{model="m",version="1"}']


def test_callers_that_are_killed_mid_stream_are_forgotten(server: ServerProcess) -> None:
    process = psutil.Process(server.process.pid)
    kill_callers(server, 4)
    memory, files = process.memory_info().rss, process.num_fds()
    for _ in range(3):
        kill_callers(server, 4)
    assert process.memory_info().rss - memory < 16 * MIB
    assert process.num_fds() <= files + 1  # the connection for the figures may be closing still


def kill_callers(server: ServerProcess, count: int) -> None:
    """Kill so many in the middle of their streams, and wait until the server is at rest."""
    command = [sys.executable, "-c", ENDLESS_CALLER, server.address, REQUEST.hex()]
    callers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    for caller in callers:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"streaming\n"
        os.kill(caller.pid, signal.SIGKILL)
        caller.wait()
        caller.stdout.close()
    assert server.plus() == 5
    wait_until_still(lambda: successes(server))


async def test_a_stream_half_closed_gets_all_its_answers(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.stream_stream(METHOD)(iter([REQUEST] * 500))
        replies = [pb.ModelStreamInferResponse.FromString(data) async for data in call]
    assert len(replies) == 500
    assert all(float_output(reply.infer_response)[0, 0] == 6 for reply in replies)


async def test_a_cancelled_stream_ends_and_the_next_one_works(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        for _ in range(20):
            call = channel.stream_stream(METHOD)()
            for _ in range(5):
                await call.write(REQUEST)
            await call.read()
            call.cancel()
        call = channel.stream_stream(METHOD)(iter([REQUEST]))
        assert len([data async for data in call]) == 1


async def test_a_caller_that_does_not_read_costs_little_memory(server: ServerProcess) -> None:
    large = raw_request("m", x=np.ones((MIB // 16, 4), np.float32)).SerializeToString()
    process = psutil.Process(server.process.pid)
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.stream_stream(METHOD)()
        await call.write(large)
        await call.read()
        before = process.memory_info().rss

        async def send() -> None:
            for data in repeat(large, 300):
                await call.write(data)

        sending = asyncio.ensure_future(send())
        await asyncio.wait([sending], timeout=3)
        assert not sending.done(), "300 MiB were taken from a caller that reads nothing"
        assert process.memory_info().rss - before < 120 * MIB
        # others are served meanwhile
        assert await asyncio.to_thread(server.plus) == 5
        sending.cancel()
        call.cancel()


async def test_packed_requests_count_for_what_is_in_them(server: ServerProcess) -> None:
    zeros = raw_request("m", x=np.zeros((MIB, 4), np.float32)).SerializeToString()  # 16 MiB, in 16 KiB
    process = psutil.Process(server.process.pid)
    async with grpc.aio.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        call = channel.stream_stream(METHOD)(repeat(zeros, 32))
        before = process.memory_info().rss
        most = 0
        for _ in range(100):
            await asyncio.sleep(0.02)
            most = max(most, process.memory_info().rss - before)
        assert most < 200 * MIB  # what is being unpacked, run and written, and not 32 times that
        call.cancel()


async def test_a_drained_server_answers_what_it_read_and_ends_its_streams(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.stream_stream(METHOD)()
        await call.write(REQUEST)
        await call.read()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert "the server is stopping" in str(await call.details())
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    assert time.monotonic() - began < 15  # an open stream does not use up the time to drain
