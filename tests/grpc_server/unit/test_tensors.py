"""Tensors survive the wire, and bytes that are no tensor are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.datatypes import Datatype
from ferryline.grpc_server.tensors import decode_contents, decode_raw, encode_raw
from ferryline.protos.grpc_service_pb2 import InferTensorContents

FIXED = [datatype for datatype in datatypes.ALL if not datatype.is_bytes]
TYPED = [datatype for datatype in datatypes.ALL if datatype.field is not None]
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
BYTES = datatypes.of_protocol("BYTES")


@st.composite
def tensors(draw: st.DrawFn, among: list[Datatype]) -> tuple[Datatype, np.ndarray[Any, Any]]:
    datatype = draw(st.sampled_from(among))
    if datatype.is_bytes:
        elements: st.SearchStrategy[Any] = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        array = draw(npst.arrays(object, SHAPES, elements=elements, fill=st.nothing()))
        return datatype, array
    return datatype, draw(npst.arrays(datatype.dtype, SHAPES))


def same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    """Bit by bit, so that NaN and -0.0 count."""
    if left.dtype.hasobject:
        return left.shape == right.shape and left.tolist() == right.tolist()
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


@given(tensors(list(datatypes.ALL)))
def test_raw_bytes_round_trip(case: tuple[Datatype, np.ndarray[Any, Any]]) -> None:
    datatype, array = case
    assert same(decode_raw(encode_raw(array, datatype), datatype, array.shape), array)


@given(tensors(TYPED))
def test_typed_contents_round_trip(case: tuple[Datatype, np.ndarray[Any, Any]]) -> None:
    datatype, array = case
    contents = InferTensorContents()
    values = array.ravel().tolist()
    getattr(contents, str(datatype.field)).extend(
        [v.encode() for v in values] if datatype.is_bytes else values
    )
    decoded = decode_contents(contents, datatype, array.shape)
    if datatype.name in {"FP32", "FP64"}:  # a typed NaN loses its payload bits and stays NaN
        np.testing.assert_array_equal(decoded, array)
    else:
        assert same(decoded, array)


@given(st.sampled_from(FIXED), SHAPES, st.integers(min_value=-3, max_value=17).filter(bool))
def test_a_wrong_number_of_raw_bytes_is_refused_with_both_numbers(
    datatype: Datatype, shape: tuple[int, ...], surplus: int
) -> None:
    expected = math.prod(shape) * datatype.dtype.itemsize
    given_bytes = max(0, expected + surplus)
    if given_bytes == expected:
        return
    with pytest.raises(ValueError, match=f"has {given_bytes} bytes of raw data.* takes {expected}"):
        decode_raw(bytes(given_bytes), datatype, shape)


@given(st.binary(max_size=64), st.integers(min_value=0, max_value=8))
def test_any_bytes_are_a_string_tensor_or_refused(raw: bytes, elements: int) -> None:
    try:
        array = decode_raw(raw, BYTES, (elements,))
    except ValueError:
        return
    assert encode_raw(array, BYTES) == raw


def test_any_byte_but_zero_is_true() -> None:
    decoded = decode_raw(b"\x00\x01\x02\xff", datatypes.of_protocol("BOOL"), (4,))
    assert decoded.tobytes() == b"\x00\x01\x01\x01"


def test_raw_numbers_are_little_endian_whatever_the_array_is() -> None:
    big = np.array([1, 2], dtype=">i4")
    assert encode_raw(big, datatypes.of_array(big)) == b"\x01\0\0\0\x02\0\0\0"


def test_a_transposed_array_is_sent_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(decode_raw(encode_raw(array, datatypes.of_array(array)), _fp32(), (3, 2)), array)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x01\x00", "ends within the length of element 0"),
        (b"\x05\x00\x00\x00ab", "announces 5 bytes for element 0, and 2 are left"),
        (b"\x01\x00\x00\x00\xff", "element 0, which is not UTF-8"),
        (b"\x01\x00\x00\x00a\x01\x00\x00\x00b", r"has more elements than the 1 of its shape"),
    ],
)
def test_broken_string_tensors_say_what_is_wrong(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_raw(raw, BYTES, (1,))


@pytest.mark.parametrize(
    ("name", "value"), [("INT8", 128), ("INT16", -32769), ("UINT8", 256), ("UINT16", 65536)]
)
def test_typed_integers_out_of_range_are_refused(name: str, value: int) -> None:
    datatype = datatypes.of_protocol(name)
    contents = InferTensorContents()
    getattr(contents, str(datatype.field)).append(value)
    with pytest.raises(ValueError, match=f"a value beyond {name}"):
        decode_contents(contents, datatype, (1,))


def test_typed_contents_in_another_field_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="has int64_contents, and FP32 travels in fp32_contents"):
        decode_contents(InferTensorContents(int64_contents=[1]), _fp32(), (1,))


def test_fp16_has_no_typed_contents() -> None:
    with pytest.raises(ValueError, match="raw_input_contents"):
        decode_contents(InferTensorContents(), datatypes.of_protocol("FP16"), (1,))


def _fp32() -> Datatype:
    return datatypes.of_protocol("FP32")
