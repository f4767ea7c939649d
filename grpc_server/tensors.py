"""Tensors as bytes and as typed contents, and back. Shapes are checked here, contracts are not.

Raw bytes are the elements little-endian in row-major order; a BYTES element is a 4-byte little-endian length
and its bytes. The errors say what is wrong in words that follow a tensor's name ("input 'x' …").
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

import numpy as np

from ferryline.grpc_server.datatypes import Array, Datatype
from ferryline.protos.grpc_service_pb2 import InferTensorContents

_LENGTH = struct.Struct("<I")
_CONTENT_FIELDS = tuple(InferTensorContents.DESCRIPTOR.fields_by_name)
_BOOL = np.dtype("?")


def decode_raw(raw: bytes, datatype: Datatype, shape: Sequence[int]) -> Array:
    """The tensor that `raw` carries, without a copy where the datatype allows it (read-only then).

    Raises:
        ValueError: the bytes are not those of such a tensor.
    """
    if datatype.is_bytes:
        elements = _split(raw, math.prod(shape))
        require_count(len(elements), datatype, shape)
        return _objects(elements).reshape(shape)
    expected = math.prod(shape) * datatype.dtype.itemsize
    if len(raw) != expected:
        raise ValueError(
            f"has {len(raw)} bytes of raw data, and {datatype.name} {list(shape)} takes {expected}"
        )
    if datatype.dtype == _BOOL:  # any other byte than 0 and 1 is no boolean to numpy or ONNX Runtime
        return np.frombuffer(raw, np.uint8).reshape(shape).astype(_BOOL)
    return np.frombuffer(raw, datatype.dtype).reshape(shape)


def decode_contents(contents: InferTensorContents, datatype: Datatype, shape: Sequence[int]) -> Array:
    """The tensor that typed contents carry.

    Raises:
        ValueError: they are in another field, too few or too many, or out of the datatype's range.
    """
    if datatype.field is None:
        raise ValueError(f"is {datatype.name}, which has no typed contents; send it in raw_input_contents")
    stray = [name for name in _CONTENT_FIELDS if name != datatype.field and len(getattr(contents, name))]
    if stray:
        raise ValueError(f"has {stray[0]}, and {datatype.name} travels in {datatype.field}")
    values = getattr(contents, datatype.field)
    require_count(len(values), datatype, shape)  # before anything is done for each of them
    array = _objects(values) if datatype.is_bytes else _in_range(values, datatype)
    return array.reshape(shape)


def encode_raw(array: Array, datatype: Datatype) -> bytes:
    """The bytes that carry `array`, which has the datatype's dtype; text goes as UTF-8."""
    if datatype.is_bytes:
        return b"".join(_prefixed(element) for element in array.ravel().tolist())
    return array.astype(datatype.dtype, copy=False).tobytes()


def _prefixed(element: str | bytes) -> bytes:
    data = element.encode() if isinstance(element, str) else bytes(element)
    return _LENGTH.pack(len(data)) + data


def require_count(count: int, datatype: Datatype, shape: Sequence[int]) -> None:
    """Require as many elements as a tensor of `shape` has.

    Raises:
        ValueError: there are more or fewer.
    """
    expected = math.prod(shape)
    if count != expected:
        raise ValueError(f"has {count} elements, and {datatype.name} {list(shape)} takes {expected}")


def _split(raw: bytes, most: int) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(elements) == most:
            raise ValueError(f"has more elements than the {most} of its shape")
        if position + _LENGTH.size > len(raw):
            raise ValueError(f"ends within the length of element {len(elements)}")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if position + length > len(raw):
            left = len(raw) - position
            raise ValueError(f"announces {length} bytes for element {len(elements)}, and {left} are left")
        elements.append(raw[position : position + length])
        position += length
    return elements


def _objects(elements: Iterable[bytes]) -> Array:
    texts = []
    for index, element in enumerate(elements):
        try:
            texts.append(element.decode())
        except UnicodeDecodeError:
            raise ValueError(f"has element {index}, which is not UTF-8 text") from None
    return np.array(texts, dtype=object)


def _in_range(values: Sequence[int | float | bool], datatype: Datatype) -> Array:
    if datatype.dtype.kind not in "iu":
        return np.array(values, dtype=datatype.dtype)
    numbers = np.array(values, dtype=np.uint64 if datatype.dtype.kind == "u" else np.int64)
    limits = np.iinfo(datatype.dtype)
    if numbers.size and (numbers.min() < limits.min or numbers.max() > limits.max):
        raise ValueError(f"has a value beyond {datatype.name}, which goes from {limits.min} to {limits.max}")
    return numbers.astype(datatype.dtype)
