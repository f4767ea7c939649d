"""Messages that callers packed, and what is beyond the limit."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.grpc_server.errors import TooLargeError
from ferryline.grpc_server.observation.heading import heading_of
from ferryline.grpc_server.packing import AT_ONCE, FIRST_BYTES, Unpacker, beginning
from ferryline.protos import grpc_service_pb2 as pb

MIB = 2**20


def unpack(data: bytes, most: int = MIB) -> bytes:
    return asyncio.run(Unpacker(most).unpack(data))


PACKERS = pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])


@PACKERS
@pytest.mark.parametrize("size", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, MIB - 1, MIB])
def test_there_and_back(pack: type[bytes], size: int) -> None:
    data = bytes(size)
    packed = pack(data)
    assert packed[:1] in FIRST_BYTES
    assert unpack(packed) == data


@PACKERS
@pytest.mark.parametrize("size", [MIB + 1, 30 * MIB])
def test_what_is_too_large_is_refused_and_never_unpacked_whole(pack: type[bytes], size: int) -> None:
    packed = pack(bytes(size))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="larger than this server takes, once unpacked"):
            unpack(packed)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_many_at_once_take_the_room_of_few() -> None:
    packed = zlib.compress(bytes(2 * MIB))

    async def all_at_once() -> None:
        unpacker = Unpacker(2 * MIB)

        async def one() -> int:
            return len(await unpacker.unpack(packed))  # and lets go of it, as whoever refuses it does

        assert set(await asyncio.gather(*(one() for _ in range(20)))) == {2 * MIB}

    tracemalloc.start()
    try:
        asyncio.run(all_at_once())
        assert tracemalloc.get_traced_memory()[1] < 10 * MIB
    finally:
        tracemalloc.stop()


@given(st.sampled_from(FIRST_BYTES), st.binary(max_size=200))
def test_what_only_begins_like_it_is_left_as_it_is(first: bytes, rest: bytes) -> None:
    data = first + rest
    try:
        expected = zlib.decompress(data, zlib.MAX_WBITS | 32)
    except zlib.error:
        expected = data
    assert unpack(data) == expected


@PACKERS
@given(data=st.data())
def test_what_was_cut_is_left_as_it_is(pack: type[bytes], data: st.DataObject) -> None:
    packed = pack(bytes(3 * AT_ONCE))
    cut = packed[: data.draw(st.integers(1, len(packed) - 1))]
    assert unpack(cut) == cut


@given(st.text(max_size=20), st.text(max_size=20), st.integers(-1, 5))
def test_no_request_of_the_protocol_begins_as_a_packed_one(model: str, text: str, rows: int) -> None:
    request = pb.ModelInferRequest(model_name=model, model_version=text, id=text)
    request.inputs.add(name="x", datatype="FP32", shape=[rows])
    request.raw_input_contents.append(text.encode())
    for message in (
        request,
        pb.ModelReadyRequest(name=model, version=text),
        pb.RepositoryIndexRequest(ready=True),
    ):
        assert message.SerializeToString()[:1] not in FIRST_BYTES


@PACKERS
def test_the_log_names_the_model_of_a_packed_request_too(pack: type[bytes]) -> None:
    request = pb.ModelInferRequest(model_name="digits", model_version="3", id="i")
    request.raw_input_contents.append(bytes(300 * 1024))
    heading = heading_of("ModelInfer", pack(request.SerializeToString()))
    assert (heading.model, heading.version, heading.request_id) == ("digits", "3", "i")
    assert beginning(b"\x1fno") == b"\x1fno"
