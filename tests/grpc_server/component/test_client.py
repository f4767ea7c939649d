"""Our client and a server: blocking, asyncio, streams, and a server that comes and goes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from ferryline.grpc_server.client import (
    AsyncClient,
    Client,
    InferenceError,
    InputError,
    ModelNotFoundError,
    Retry,
    TimedOutError,
    UnavailableError,
)
from tests.grpc_server import model_files
from tests.grpc_server.held_runs import holding_runs
from tests.grpc_server.running_server import RunningServer
from tests.grpc_server.server_in_process import Site
from tests.support.waiting import DEADLINE, wait_for, wait_for_async

ROW = [[1, 2, 3, 4]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    site.publish(model_files.sum_and_difference(), "two")
    site.publish(model_files.identity("string", ["n"]), "text")
    site.publish(model_files.lookup(), "table")
    site.publish(model_files.held(1), "slow")
    with pytest.MonkeyPatch.context() as patch, holding_runs():
        patch.setenv("FERRY_SERVER_RUN_THREADS", "1")  # so that of two slow calls one waits
        with site.server("m", "two", "text", "table", "slow") as running:
            running.wait_until_healthy()
            yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as made:
        yield made


def test_numbers_in_numbers_out_and_whose_they_are(client: Client) -> None:
    answer = client.infer("m", ROW, request_id="a-1", parameters={"mine": 7})
    assert answer["y"].tolist() == [[6, 7, 8, 9]]
    assert (answer.model.version, answer.model.generation, answer.model.channel) == ("1", 1, "production")
    assert answer.model.digest is not None
    assert answer.model.digest.startswith("sha256:")
    assert (answer.id, answer.parameters) == ("a-1", {"mine": 7})


def test_several_inputs_and_chosen_outputs(client: Client) -> None:
    answer = client.infer("two", {"a": [[1, 2, 3]], "b": [[1, 1, 1]]}, outputs=["difference", "sum"])
    assert list(answer) == ["difference", "sum"]
    assert (answer["difference"].tolist(), answer["sum"].tolist()) == ([[0, 1, 2]], [[2, 3, 4]])


def test_text_goes_and_comes_as_text(client: Client) -> None:
    assert client.infer("text", ["eins", "zwölf"])["y"].tolist() == ["eins", "zwölf"]


def test_what_a_model_takes_can_be_asked(client: Client) -> None:
    info = client.model("two")
    assert {name: str(tensor) for name, tensor in info.inputs.items()} == {
        "a": "INT64 [-1, 3]",
        "b": "INT64 [-1, 3]",
    }
    assert info.versions == ("1",)
    assert client.live()
    assert client.ready("m", 1)
    assert not client.ready("m", 2)


def test_a_version_that_is_not_warm_is_named(client: Client) -> None:
    assert client.infer("m", ROW, version=1).model.version == "1"
    with pytest.raises(ModelNotFoundError, match="warm here: 1") as caught:
        client.infer("m", ROW, version=8)
    assert caught.value.code == "NOT_FOUND"


def test_a_timeout_is_the_calls_own(client: Client) -> None:
    client.model("slow")
    with pytest.raises(TimedOutError):
        client.infer("slow", ROW, timeout=0.05)


def test_a_stream_answers_in_order_and_outlives_a_failed_request(client: Client) -> None:
    with client.stream("table") as stream:
        for index in ([1], [99], [3]):
            stream.send(index)
        assert stream.receive()["y"].tolist() == [100]
        with pytest.raises(InferenceError, match="UNKNOWN"):
            stream.receive()
        assert stream.receive()["y"].tolist() == [300]
        with pytest.raises(InputError):
            stream.send([1.5])


def test_a_stream_sends_ahead_of_its_answers(client: Client) -> None:
    with client.stream("m") as stream:
        batches = (np.full((2, 4), number) for number in range(500))
        found = [answer["y"][0, 0] for answer in stream.answers(batches)]
    assert found == [number + 5 for number in range(500)]


def test_a_stream_does_not_wait_for_batches_that_are_still_to_come(client: Client) -> None:
    answered = threading.Event()

    def batches() -> Iterator[list[list[int]]]:
        yield ROW
        assert answered.wait(DEADLINE), "the first answer waits for the second request"
        yield ROW

    with client.stream("m") as stream:
        for answer in stream.answers(batches()):
            assert answer["y"][0, 0] == 6
            answered.set()


def test_what_fails_in_the_batches_is_raised_where_answers_are_read(client: Client) -> None:
    def batches() -> Iterator[list[list[int]]]:
        yield ROW
        raise ZeroDivisionError("mine")

    with client.stream("m") as stream:
        answers = stream.answers(batches())
        assert next(answers)["y"][0, 0] == 6
        with pytest.raises(ZeroDivisionError, match="mine"):
            next(answers)
        with pytest.raises(InferenceError, match="CANCELLED"):
            stream.receive()


def test_a_stream_left_early_leaves_no_thread_behind(client: Client) -> None:
    before = threads_of_streams()
    for _ in range(5):
        with client.stream("m") as stream:
            next(stream.answers(iter(lambda: ROW, None)))
    wait_for(lambda: threads_of_streams() <= before, "the end of what fed the streams")


def threads_of_streams() -> set[threading.Thread]:
    """Those of the client that feed streams; the server in this process has others."""
    return {each for each in threading.enumerate() if "_feed" in each.name or "_consume" in each.name}


def test_many_threads_share_a_client(client: Client) -> None:
    wrong: list[float] = []

    def ask(number: int) -> None:
        for _ in range(50):
            found = client.infer("m", np.full((1, 4), number))["y"][0, 0]
            if found != number + 5:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


async def test_asyncio_does_all_of_it(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        await client.wait_until_ready()
        assert await client.live()
        assert await client.ready("m")
        assert (await client.model("m")).platform == "onnxruntime_onnx"
        answers = await asyncio.gather(*(client.infer("m", np.full((1, 4), number)) for number in range(50)))
        assert [answer["y"][0, 0] for answer in answers] == [number + 5 for number in range(50)]
        with pytest.raises(ModelNotFoundError):
            await client.infer("nothing", ROW)
        with pytest.raises(TimedOutError):
            await client.infer("slow", ROW, timeout=0.05)


async def test_asyncio_streams(server: RunningServer) -> None:
    async def batches() -> AsyncIterator[list[list[int]]]:
        for number in range(300):
            yield [[number] * 4]

    async with AsyncClient(server.address) as client:
        async with await client.stream("m") as stream:
            found = [answer["y"][0, 0] async for answer in stream.answers(batches())]
            assert found == [number + 5 for number in range(300)]
        async with await client.stream("table") as stream:
            for index in ([1], [99], [3]):
                stream.send(index)
            assert (await stream.receive())["y"].tolist() == [100]
            with pytest.raises(InferenceError, match="UNKNOWN"):
                await stream.receive()
            assert (await stream.receive())["y"].tolist() == [300]


async def test_a_cancelled_call_leaves_the_client_usable(server: RunningServer) -> None:
    async with AsyncClient(server.address) as client:
        tasks = [asyncio.create_task(client.infer("slow", ROW)) for _ in range(2)]
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"}'

        def one_waits() -> bool:
            return server.metrics()[waiting] == 1

        await wait_for_async(one_waits, "one to run and the other to wait")
        for task in tasks:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await client.infer("m", ROW))["y"][0, 0] == 6


def test_nobody_there_is_told_soon() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Client(address, retry=Retry(attempts=2, first=0.05)) as client:
            assert not client.live()
            with pytest.raises(UnavailableError):
                client.infer("m", ROW)


def test_a_closed_client_says_so(server: RunningServer) -> None:
    client = Client(server.address)
    client.close()
    with pytest.raises(InferenceError, match="CANCELLED"):
        client.infer("m", ROW)


def test_a_restart_of_the_server_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = Site(tmp_path_factory.mktemp("restarts"))
    site.publish(model_files.plus(5))
    with site.server() as first:
        first.wait_until_healthy()
        port = first.address.rpartition(":")[2]
        patient = Client(first.address, timeout=DEADLINE, retry=_Counted(attempts=10_000, longest=0.2))
        assert patient.infer("m", ROW)["y"][0, 0] == 6
    with patient, ThreadPoolExecutor() as pool:
        asked = pool.submit(patient.infer, "m", ROW)
        wait_for(lambda: _Counted.waits > 1, "tries while no server is there")
        with site.server(flags=["--port", port]):
            assert asked.result(DEADLINE)["y"][0, 0] == 6


class _Counted(Retry):
    """Counts how often it was waited."""

    waits = 0

    def wait_after(self, *arguments: Any) -> float | None:
        type(self).waits += 1
        return super().wait_after(*arguments)
