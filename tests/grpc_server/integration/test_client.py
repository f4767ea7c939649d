"""Our client on the real server: blocking, asyncio, streams, and a server that comes and goes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from grpc_server.client import (
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
from tests.grpc_server.server_process import ServerProcess, Site

pytestmark = pytest.mark.integration

ROW = [[1, 2, 3, 4]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.publish(model_files.plus(5))
    site.publish(model_files.sum_and_difference(), "two")
    site.publish(model_files.identity("string", ["n"]), "text")
    site.publish(model_files.lookup(), "table")
    site.publish(model_files.slow(), "slow")
    with site.server("m", "two", "text", "table", "slow") as running:
        running.wait_until_healthy()
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
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
        assert answered.wait(10), "the first answer waits for the second request"
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
    before = threading.active_count()
    for _ in range(5):
        with client.stream("m") as stream:
            next(stream.answers(iter(lambda: ROW, None)))
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline, [thread.name for thread in threading.enumerate()]
        time.sleep(0.01)


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


async def test_asyncio_does_all_of_it(server: ServerProcess) -> None:
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


async def test_asyncio_streams(server: ServerProcess) -> None:
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


async def test_a_cancelled_call_leaves_the_client_usable(server: ServerProcess) -> None:
    async with AsyncClient(server.address) as client:
        task = asyncio.create_task(client.infer("slow", ROW))
        await asyncio.sleep(0.05)
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


def test_a_closed_client_says_so(server: ServerProcess) -> None:
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
        patient = Client(first.address, timeout=60, retry=Retry(attempts=100, longest=0.5))
        assert patient.infer("m", ROW)["y"][0, 0] == 6
    with patient, (site.folder / "second.log").open("wb") as log:
        command = [*site.command(["m"], []), "--port", port]
        process = subprocess.Popen(command, stderr=log)
        try:
            assert patient.infer("m", ROW)["y"][0, 0] == 6
        finally:
            process.terminate()
            process.wait(30)
