"""The arithmetic of tensors: how many elements are declared, how many are stored, what they take."""

from __future__ import annotations

import math
from collections.abc import Iterable

from onnx import TensorProto

_BITS = {
    "UINT2": 2, "INT2": 2, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4,
    "BOOL": 8, "UINT8": 8, "INT8": 8,
    "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8,
    "UINT16": 16, "INT16": 16, "FLOAT16": 16, "BFLOAT16": 16,
    "UINT32": 32, "INT32": 32, "FLOAT": 32,
    "UINT64": 64, "INT64": 64, "DOUBLE": 64, "COMPLEX64": 64,
    "COMPLEX128": 128,
}  # fmt: skip
_STRING_BITS = 256  # a C++ string object, even an empty one

# by number; which of them exist depends on onnx's version
_BITS_BY_TYPE = {
    number: _BITS.get(name, _STRING_BITS if name == "STRING" else 8)
    for name, number in TensorProto.DataType.items()
}


def bits_of(data_type: int) -> int:
    """Bits of one element in memory; 8 for a type that does not exist, which others refuse."""
    return _BITS_BY_TYPE.get(data_type, 8)


def bytes_of(data_type: int, dims: Iterable[int]) -> int:
    """Bytes of a tensor in memory."""
    return (math.prod(dims) * bits_of(data_type) + 7) // 8


def stored_elements(tensor: TensorProto) -> int:
    """How many elements a tensor may hold at most, by what is stored of it."""
    if tensor.data_type == TensorProto.STRING:
        return len(tensor.string_data)
    bits = bits_of(tensor.data_type)
    typed = max(
        len(tensor.float_data),
        len(tensor.int32_data),
        len(tensor.int64_data),
        len(tensor.double_data),
        len(tensor.uint64_data),
    )
    # types of less than a byte are packed, also in int32_data
    return max(len(tensor.raw_data) * 8 // bits, typed * max(1, 8 // bits))
