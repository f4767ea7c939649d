"""Thousands of malformed requests, and huge ones, leave the server's process no larger than it was."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import grpc
import psutil
import pytest

from tests.grpc_server import model_files
from tests.grpc_server.malformed import FINE, send_over_grpc, send_over_http
from tests.grpc_server.server_process import ServerProcess, Site
from tests.support.sizes import sized
from tests.support.waiting import DEADLINE

EACH = 5000
FIRST = 500
"""After so many the server has grown to its size."""
MIB = 2**20
HUGE = 40 * MIB
"""Less than the server takes, so that it reads all of it."""
BEYOND = 300 * MIB
"""More than it takes, once unpacked; packed it is a few hundred KiB."""
TIMES = sized(4, 12)
INFER = "/inference.GRPCInferenceService/ModelInfer"
UNLIMITED = [("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One for all, from those that take little memory to those that take much."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    site.publish(model_files.sum_and_difference(), "two")
    site.publish(model_files.identity("string", ["n"]), "text")
    with site.server("m", "two", "text") as running:
        running.wait_until_healthy()
        yield running
        assert "Traceback" not in running.log()


def memory(server: ServerProcess) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def test_over_grpc(server: ServerProcess) -> None:
    chance = random.Random(50)  # noqa: S311 - the same requests every time
    seen = send_over_grpc(server, chance, FIRST)
    before = memory(server)
    seen += send_over_grpc(server, chance, EACH - FIRST)
    assert seen[grpc.StatusCode.INVALID_ARGUMENT] > EACH / 2, seen
    assert server.plus() == 5
    assert memory(server) - before < 16 * MIB


def test_over_http(server: ServerProcess) -> None:
    chance = random.Random(51)  # noqa: S311 - likewise
    seen = send_over_http(server, chance, FIRST)
    before = memory(server)
    seen += send_over_http(server, chance, EACH - FIRST)
    assert seen[400] > EACH / 2, seen
    assert server.plus() == 5
    assert memory(server) - before < 16 * MIB


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_what_is_too_large_once_unpacked_is_never_unpacked_whole(
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
    try:
        with grpc.insecure_channel(server.address, UNLIMITED) as channel:
            infer = channel.unary_unary(INFER)
            call = infer.future(bytes(BEYOND), timeout=DEADLINE, compression=packing)
            assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            assert len(list(stream(iter([bytes(BEYOND)]), timeout=DEADLINE, compression=packing))) == 1
    finally:
        ended.set()
        watching.join()
    assert max(peaks) - before < BEYOND, (max(peaks) - before) / MIB
    assert server.plus() == 5


def peak_memory(server: ServerProcess, send: Callable[[], object]) -> int:
    """The most memory that the server had, as it is told after each."""
    peak = 0
    for _ in range(TIMES):
        send()
        peak = max(peak, memory(server))
    return peak


@pytest.mark.parametrize("packed", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_huge_ones_over_grpc_leave_nothing_behind(server: ServerProcess, packed: grpc.Compression) -> None:
    with grpc.insecure_channel(server.address, UNLIMITED) as channel:
        infer = channel.unary_unary(INFER)

        def send() -> None:
            assert infer.future(bytes(HUGE), timeout=DEADLINE, compression=packed).code() in FINE

        send()
        before = memory(server)
        assert peak_memory(server, send) - before < TIMES * HUGE / 3
    assert server.plus() == 5


def test_huge_ones_over_http_leave_nothing_behind(server: ServerProcess) -> None:
    with closing(http.client.HTTPConnection(server.http_address, timeout=DEADLINE)) as connection:

        def send() -> None:
            connection.request("POST", "/v2/models/m/infer", bytes(HUGE))
            reply = connection.getresponse()
            assert (reply.status, len(reply.read()) > 10) == (400, True)

        send()
        before = memory(server)
        assert peak_memory(server, send) - before < TIMES * HUGE / 3
    assert server.plus() == 5
