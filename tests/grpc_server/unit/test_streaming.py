"""Streams without a socket: order, errors inside, backpressure, and every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from ferryline.grpc_server import streaming
from ferryline.grpc_server.endpoint import Endpoint, endpoints
from ferryline.grpc_server.streaming import OrderedStream, StreamAnswers
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, float_output, raw_request

ROW = np.ones((1, 4), np.float32)
END = object()
Answer = Callable[[bytes], bytes | Awaitable[bytes]]


class Wire:
    """Both ends of one stream: what the caller sends, and what arrives there."""

    def __init__(self, *sent: bytes, ended: bool = True) -> None:
        self._sent: asyncio.Queue[object] = asyncio.Queue()
        for each in sent:
            self._sent.put_nowait(each)
        if ended:
            self._sent.put_nowait(END)
        self.read_count = 0
        self.received: list[bytes] = []
        self.flowing = asyncio.Event()
        self.flowing.set()

    def send(self, data: bytes) -> None:
        self._sent.put_nowait(data)

    async def read(self) -> object:
        found = await self._sent.get()
        self.read_count += 1
        return found

    async def write(self, data: bytes) -> None:
        await self.flowing.wait()
        self.received.append(data)

    def stream(self, answer: Answer) -> OrderedStream:
        return OrderedStream(answer, self.read, self.write, END)


async def turns(count: int = 300) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_answers_come_in_the_order_of_the_requests_whoever_is_done_first() -> None:
    gates = {name: asyncio.Event() for name in (b"a", b"c")}

    async def later(data: bytes) -> bytes:
        await gates[data].wait()
        return data.upper()

    wire = Wire(b"a", b"b", b"c", b"d")
    run = asyncio.ensure_future(
        wire.stream(lambda data: later(data) if data in gates else data.upper()).run()
    )
    gates[b"c"].set()
    await turns()
    assert wire.received == []
    gates[b"a"].set()
    await run
    assert wire.received == [b"A", b"B", b"C", b"D"]


async def test_requests_behind_a_slow_one_are_begun_so_that_they_can_be_batched() -> None:
    begun: list[bytes] = []
    gate = asyncio.Event()

    async def later(data: bytes) -> bytes:
        begun.append(data)
        await gate.wait()
        return data

    wire = Wire(b"a", b"b", b"c")
    run = asyncio.ensure_future(wire.stream(later).run())
    await turns()
    assert begun == [b"a", b"b", b"c"]
    gate.set()
    await run


async def test_a_reader_who_does_not_read_is_not_read_from_beyond_the_bound() -> None:
    wire = Wire(*[b"x"] * 500)
    wire.flowing.clear()
    run = asyncio.ensure_future(wire.stream(lambda data: data).run())
    await turns(2000)
    assert wire.read_count == streaming.MOST_PENDING
    wire.flowing.set()
    await run
    assert len(wire.received) == 500


async def test_large_messages_are_bounded_by_their_bytes() -> None:
    wire = Wire(*[b"x" * (streaming.MOST_PENDING_BYTES // 4)] * 20)
    wire.flowing.clear()
    run = asyncio.ensure_future(wire.stream(lambda data: data).run())
    await turns(2000)
    assert wire.read_count == 3  # with their answers, they are beyond the bound
    wire.flowing.set()
    await run
    assert len(wire.received) == 20


async def test_awaited_answers_are_bounded_by_their_bytes_too() -> None:
    begun = 0

    async def later(_data: bytes) -> bytes:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        return b"x" * (streaming.MOST_PENDING_BYTES // 4)

    wire = Wire(*[b"x"] * 40)
    wire.flowing.clear()
    run = asyncio.ensure_future(wire.stream(later).run())
    await turns(2000)
    unknown = streaming.MOST_PENDING_BYTES // streaming.FIRST_ANSWER_BYTES
    assert begun <= unknown  # nobody knew yet how large the answers are
    assert len(wire.received) == 0
    wire.flowing.set()
    await run
    assert len(wire.received) == 40


async def test_after_the_first_answer_no_more_are_begun_than_have_room() -> None:
    begun = 0

    async def later(_data: bytes) -> bytes:
        nonlocal begun
        begun += 1
        return b"x" * (streaming.MOST_PENDING_BYTES // 4)

    wire = Wire(b"x", ended=False)
    run = asyncio.ensure_future(wire.stream(later).run())
    await turns()
    wire.flowing.clear()
    begun = 0
    for _ in range(40):
        wire.send(b"x")
    await turns(2000)
    assert begun == 4  # with their requests, they are beyond the bound
    run.cancel()


async def test_who_leaves_takes_what_is_under_way_along() -> None:
    cancelled: list[bytes] = []

    async def forever(data: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(data)
            raise
        return data

    wire = Wire(b"a", b"b", ended=False)
    run = asyncio.ensure_future(wire.stream(forever).run())
    await turns()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await turns()
    assert cancelled == [b"a", b"b"]


async def test_a_finished_stream_answers_what_it_has_read_and_says_that_it_was_cut_short() -> None:
    gate = asyncio.Event()

    async def later(data: bytes) -> bytes:
        await gate.wait()
        return data

    wire = Wire(b"a", b"b", ended=False)
    stream = wire.stream(later)
    run = asyncio.ensure_future(stream.run())
    await turns()
    stream.finish()
    gate.set()
    await run
    assert (wire.received, stream.cut_short) == ([b"a", b"b"], True)


async def test_what_reading_raises_ends_the_stream_after_what_was_read() -> None:
    wire = Wire(b"a", ended=False)

    async def broken() -> object:
        if wire.read_count:
            raise ConnectionResetError("gone")
        return await wire.read()

    with pytest.raises(ConnectionResetError, match="gone"):
        await OrderedStream(lambda data: data, broken, wire.write, END).run()
    assert wire.received == [b"a"]


async def test_what_writing_raises_ends_the_reader_too() -> None:
    wire = Wire(b"a", ended=False)

    async def broken(_data: bytes) -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await OrderedStream(lambda data: data, wire.read, broken, END).run()
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def infer(shop: Shop) -> Endpoint[pb.ModelInferRequest]:
    shop.publish("m", model_files.plus(1))
    _, found = endpoints(shop.follow("m"))
    return next(rpc for rpc in found if rpc.name == "ModelInfer")


async def test_every_request_has_one_answer_and_a_wrong_one_does_not_end_the_stream(
    infer: Endpoint[pb.ModelInferRequest],
) -> None:
    good, wrong = raw_request("m", x=ROW), raw_request("none", x=ROW)
    wrong.id = "w"
    final = raw_request("m", x=ROW)
    final.parameters["triton_enable_empty_final_response"].bool_param = True
    sent = [
        *(each.SerializeToString() for each in (good, good, wrong, final)),
        b"\xff",
        good.SerializeToString(),
    ]
    wire = Wire(*sent)
    await wire.stream(StreamAnswers(infer)).run()
    replies = [pb.ModelStreamInferResponse.FromString(data) for data in wire.received]
    texts = [reply.error_message for reply in replies]
    assert texts == [
        "", "", "no model 'none' here; this server serves 'm'", "",
        "the bytes are no message of inference.GRPCInferenceService/ModelInfer", "",
    ]  # fmt: skip
    assert [reply.infer_response.id for reply in replies] == ["", "", "w", "", "", ""]
    for reply in (replies[0], replies[1], replies[3], replies[5]):
        assert float_output(reply.infer_response)[0, 0] == 2
    said = [reply.infer_response.parameters for reply in replies]
    assert ["triton_final_response" in each for each in said] == [False, False, False, True, False, False]
    assert said[3]["triton_final_response"].bool_param
    assert "triton_enable_empty_final_response" not in said[3]


@pytest.mark.parametrize("rows", [1, 8, 31, 1024, 9000])
async def test_a_wrapped_reply_of_every_length_is_whole(
    infer: Endpoint[pb.ModelInferRequest], rows: int
) -> None:
    data = raw_request("m", x=np.ones((rows, 4), np.float32)).SerializeToString()
    wire = Wire(data, data)
    await wire.stream(StreamAnswers(infer)).run()
    for each in wire.received:
        reply = pb.ModelStreamInferResponse.FromString(each)
        np.testing.assert_array_equal(float_output(reply.infer_response), np.full((rows, 4), 2))
