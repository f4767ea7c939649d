"""Header blocks, held to the package hpack: what it writes we read, what we write it reads."""

from __future__ import annotations

import contextlib

import hpack
import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from ferryline.grpc_server.http2.errors import Code, ConnectionFaultError
from ferryline.grpc_server.http2.fields import MOST_FIELD_BYTES, TABLE_BYTES, FieldReader, FieldWriter

NAMES = st.sampled_from([":path", ":method", "te", "content-type", "grpc-timeout", "x-a", "x-long-name-b"])
VALUES = st.sampled_from(["POST", "/", "", "200", "x" * 500]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=40
)
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), min_size=1, max_size=20)
TABLES = st.sampled_from([0, 40, 100, 1000, TABLE_BYTES])


def as_bytes(fields: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in fields]


@given(BLOCKS, st.lists(TABLES, max_size=5), st.booleans())
def test_what_another_writes_is_read(
    blocks: list[list[tuple[str, str]]], tables: list[int], is_packed: bool
) -> None:
    encoder, reader = hpack.Encoder(), FieldReader(list)
    for number, fields in enumerate(blocks):
        if number < len(tables) and fields:
            encoder.header_table_size = tables[number]
        block = encoder.encode(fields, huffman=is_packed)
        assert reader.read(block) == as_bytes(fields)


@given(BLOCKS, st.lists(TABLES, max_size=5))
def test_another_reads_what_is_written(blocks: list[list[tuple[str, str]]], tables: list[int]) -> None:
    decoder, writer = hpack.Decoder(), FieldWriter()
    # the same few blocks again and again, which is when they are kept
    for number, fields in enumerate([*blocks, *blocks, *blocks]):
        if number < len(tables):
            writer.allow(tables[number])
            decoder.max_allowed_table_size = TABLE_BYTES
        block = writer.write(tuple(fields))
        assert list(decoder.decode(block, raw=True)) == as_bytes(fields)


def test_a_block_that_comes_again_is_not_read_again() -> None:
    encoder, reader = hpack.Encoder(), FieldReader(list)
    fields = [(":path", "/inference.GRPCInferenceService/ModelInfer"), ("te", "trailers")]
    reader.read(encoder.encode(fields))
    again = encoder.encode(fields)
    assert reader.read(again) is reader.read(again)


def test_the_same_bytes_mean_something_else_once_the_table_has_changed() -> None:
    encoder, reader = hpack.Encoder(), FieldReader(list)
    encoder.encode([("x-a", "1")])
    reader = FieldReader(list)
    reader.read(hpack.Encoder().encode([("x-a", "1")]))
    newest = b"\xbe"  # index 62
    assert reader.read(newest) == [(b"x-a", b"1")]
    reader.read(hpack.Encoder().encode([("x-b", "2")]))
    assert reader.read(newest) == [(b"x-b", b"2")]


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_damage_is_a_fault_of_the_connection_and_nothing_else(blocks: list[bytes]) -> None:
    reader = FieldReader(list)
    with contextlib.suppress(ConnectionFaultError):
        for block in blocks:
            reader.read(block)


@given(st.data())
def test_a_block_that_is_cut_off_is_a_fault(data: st.DataObject) -> None:
    block = hpack.Encoder().encode([("x-name", "value"), ("x-other", "z" * 200)])
    size = data.draw(st.integers(1, len(block) - 1))
    first = hpack.Encoder().encode([("x-name", "value")])
    if size == len(first):
        assert FieldReader(list).read(block[:size]) == [(b"x-name", b"value")]
        return
    with pytest.raises(ConnectionFaultError) as caught:
        FieldReader(list).read(block[:size])
    assert caught.value.code is Code.COMPRESSION_ERROR


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\x80", Code.COMPRESSION_ERROR),  # index 0
        (b"\xff\xff\xff\xff\xff\xff\xff\x01", Code.COMPRESSION_ERROR),  # a number without end
        (b"\x3f\xe2\x1f", Code.COMPRESSION_ERROR),  # a table of 4097 bytes
        (b"\x82\x20", Code.COMPRESSION_ERROR),  # another table after a field
        (b"\x00\x7f\xff\xff\xff\x7f", Code.COMPRESSION_ERROR),  # a name of a gigabyte
        (b"\x00\x82\xff\xff\x00", Code.COMPRESSION_ERROR),  # a Huffman code that ends within a symbol
    ],
)
def test_what_the_standard_forbids(block: bytes, code: Code) -> None:
    with pytest.raises(ConnectionFaultError) as caught:
        FieldReader(list).read(block)
    assert caught.value.code is code


def test_a_small_block_cannot_become_large() -> None:
    reader = FieldReader(list)
    reader.read(hpack.Encoder().encode([("x", "v" * 3000)]))
    with pytest.raises(ConnectionFaultError) as caught:
        reader.read(b"\xbe" * (MOST_FIELD_BYTES // 3000 + 1))
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_texts_are_unpacked_as_hpack_does(text: str) -> None:
    packed = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text.encode("latin-1"))
    block = b"\x00\x01a" + encode_integer(len(packed), 7)
    block = block[:3] + bytes([block[3] | 0x80]) + block[4:] + packed
    assert FieldReader(list).read(block) == [(b"a", text.encode("latin-1"))]


@given(st.binary(min_size=1, max_size=12))
def test_any_packed_text_is_what_hpack_takes_it_for(packed: bytes) -> None:
    block = b"\x00\x01a" + bytes([len(packed) | 0x80]) + packed
    try:
        expected = [(b"a", bytes(decode_huffman(packed)))]
    except HPACKDecodingError:
        with pytest.raises(ConnectionFaultError):
            FieldReader(list).read(block)
    else:
        assert FieldReader(list).read(block) == expected
