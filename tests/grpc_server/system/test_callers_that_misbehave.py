"""Callers that are idle, half open, killed or do not read: what they cost the server's process."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import repeat

import grpc
import numpy as np
import orjson
import psutil
import pytest

from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW
from tests.grpc_server.server_process import ServerProcess, Site
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE, wait_for

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
REQUEST = raw_request("m", x=ROW).SerializeToString()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
MIB = 2**20
IDLE = 1000

ENDLESS_CALLER = """
import itertools, sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
for number, _ in enumerate(stream(itertools.repeat(bytes.fromhex(sys.argv[2])))):
    if number == 100:
        print("streaming", flush=True)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    made.publish(model_files.plus(6), "other")
    return made


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[ServerProcess]:
    """One for those tests that leave as much memory as they found."""
    with site.server("m", "other") as running:
        running.wait_until_healthy()
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture(scope="module")
def process(server: ServerProcess) -> psutil.Process:
    return psutil.Process(server.pid)


def place(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files for this process and its children as the idle connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_idle_connections_cost_little_and_do_not_hold_up_a_stop(site: Site) -> None:
    with site.server(flags=["--drain-seconds", "86400"]) as server, ExitStack() as stack:
        server.wait_until_healthy()
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        for _ in range(IDLE):
            idle = stack.enter_context(closing(socket.create_connection(place(server.address))))
            idle.sendall(PREFACE)
        wait_for(lambda: process.num_fds() > IDLE, "all of them to be accepted")
        for _ in range(200):
            assert server.plus() == 5
        grown = process.memory_info().rss - before
        assert grown < 48 * MIB, grown / MIB
        awake = wakes(process)
        wait_for_looks(server, 10)
        assert wakes(process) - awake < IDLE / 10, "idle connections wake the event loop"
        server.ask_to_stop()
        assert server.wait() == 0, "it ends while all of them are open"


def wakes(process: psutil.Process) -> int:
    """How often the process's first thread, which runs the event loop, has been woken."""
    return int(process.num_ctx_switches().voluntary)


def wait_for_looks(server: ServerProcess, count: int) -> None:
    """Return when the server has looked into the registry so often."""
    ages = [server.metric("ferry_channel_read_age_seconds")]

    def has_looked() -> bool:
        ages.append(server.metric("ferry_channel_read_age_seconds"))
        return sum(later < earlier for earlier, later in itertools.pairwise(ages)) >= count

    wait_for(has_looked, "looks into the registry")


def test_connections_that_never_say_what_they_want_cost_little_and_are_let_go(
    server: ServerProcess, process: psutil.Process
) -> None:
    web = place(server.http_address)
    greetings = [
        (place(server.address), b""),
        (place(server.address), PREFACE[:7]),
        (place(server.address), b"\x16\x03\x01\x02\x00\x01"),
        (web, b""),
        (web, b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"),
        (web, b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{"),
    ]
    for _ in range(20):
        assert server.plus() == 5
    memory, files = process.memory_info().rss, process.num_fds()
    with ExitStack() as stack:
        for address, greeting in greetings * 50:
            half_open = stack.enter_context(closing(socket.create_connection(address)))
            half_open.sendall(greeting)
        wait_for(lambda: process.num_fds() >= files + 150, "them to be accepted")
        for _ in range(100):
            assert server.plus() == 5
        assert infer_over_http(server) == 200
        assert process.memory_info().rss - memory < 32 * MIB
    wait_for(lambda: process.num_fds() <= files + 2, "their end")
    assert server.plus() == 5


def infer_over_http(server: ServerProcess) -> int:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    with closing(http.client.HTTPConnection(server.http_address, timeout=DEADLINE)) as connection:
        connection.request("POST", "/v2/models/m/infer", orjson.dumps({"inputs": [tensor]}))
        return connection.getresponse().status


def test_callers_that_are_killed_mid_stream_are_forgotten(
    server: ServerProcess, process: psutil.Process
) -> None:
    kill_callers(server, 4)
    memory, files = process.memory_info().rss, process.num_fds()
    for _ in range(2):
        kill_callers(server, 4)
    assert process.memory_info().rss - memory < 16 * MIB
    # the connection for the figures may be closing still
    wait_for(lambda: process.num_fds() <= files + 1, "the end of their connections")


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
    server.wait_until_still(lambda: successes(server), "other")


def successes(server: ServerProcess) -> float:
    return server.metrics()['nv_inference_request_success{model="m",version="1"}']


async def test_packed_requests_count_for_what_is_in_them(
    server: ServerProcess, process: psutil.Process
) -> None:
    zeros = raw_request("m", x=np.zeros((MIB, 4), np.float32)).SerializeToString()  # 16 MiB, in 16 KiB
    async with grpc.aio.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        call = channel.stream_stream(STREAM)(repeat(zeros, 32))
        before, most = process.memory_info().rss, 0

        def taken() -> float:
            nonlocal most
            most = max(most, process.memory_info().rss - before)
            return successes(server)

        await asyncio.to_thread(server.wait_until_still, taken, "other")
        assert most < 200 * MIB  # what is being unpacked, run and written, and not 32 times that
        call.cancel()


def test_a_stream_whose_answers_nobody_reads_costs_a_bounded_memory(
    server: ServerProcess, process: psutil.Process
) -> None:
    large = raw_request("m", x=np.ones((MIB // 16, 4), np.float32)).SerializeToString()
    taken = 0

    def requests() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(400):
            taken += 1
            yield large

    before = process.memory_info().rss
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(STREAM)(requests(), timeout=DEADLINE)
        next(call)
        assert server.wait_until_still(lambda: taken, "other") < 200, "it reads further than it can answer"
        assert process.memory_info().rss - before < 120 * MIB
        call.cancel()
    assert server.plus() == 5
