"""The elements of one tensor as JSON. The errors say what is wrong in words that follow the tensor's name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ferryline.grpc_server.datatypes import Array, Datatype
from ferryline.grpc_server.tensors import encode_raw, require_count

_WORDS = {bool: "a boolean", int: "a whole number", float: "a number", str: "a string"}
_MOST_DIMENSIONS = 32


def raw_from_json(data: object, datatype: Datatype, shape: Sequence[int]) -> bytes:
    """The raw bytes of a tensor whose elements are `data`: a list, flat or nested as the shape is.

    Raises:
        ValueError: there are not as many as `shape` has, or one is no such element, or out of the datatype's
            range.
    """
    flat = _flat(data)
    if all(size >= 0 for size in shape):  # else the contract says what is wrong
        require_count(len(flat), datatype, shape)
    kind = datatype.dtype.kind
    if kind == "O":
        _require(flat, str)
        return encode_raw(np.array(flat, dtype=object), datatype)
    if kind == "b":
        _require(flat, bool)
        return encode_raw(np.array(flat, dtype=datatype.dtype), datatype)
    if kind == "f":
        _require(flat, float, int)
        return encode_raw(_floats(flat, datatype), datatype)
    _require(flat, int)
    return encode_raw(_integers(flat, datatype), datatype)


def json_elements(array: Array, datatype: Datatype) -> Any:
    """The elements for `orjson` with `OPT_SERIALIZE_NUMPY`, flat in row-major order; NaN is null."""
    if datatype.is_bytes:
        return array.ravel().tolist()
    return np.ascontiguousarray(array.ravel())


def _flat(data: object) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError("has data that are no list")  # noqa: TRY004 - what a caller sent is wrong, no type of ours
    for _ in range(_MOST_DIMENSIONS):
        kinds = set(map(type, data))
        if list not in kinds:
            return data
        if len(kinds) > 1:
            break
        data = list(chain.from_iterable(data))
    raise ValueError("has data of uneven depth")


def _require(flat: Sequence[Any], *kinds: type) -> None:
    strays = set(map(type, flat)) - set(kinds)
    if strays:
        index = next(index for index, element in enumerate(flat) if type(element) not in kinds)
        raise ValueError(f"has element {index}, which is not {_WORDS[kinds[0]]}")


def _floats(flat: list[Any], datatype: Datatype) -> Array:
    try:
        wide = np.array(flat, dtype=np.float64)
    except OverflowError:
        raise ValueError(f"has a value beyond {datatype.name}") from None
    with np.errstate(over="ignore"):
        array = wide.astype(datatype.dtype)
    if np.isinf(array).any():
        raise ValueError(f"has a value beyond {datatype.name}")
    return array


def _integers(flat: list[Any], datatype: Datatype) -> Array:
    limits = np.iinfo(datatype.dtype)
    if flat and (min(flat) < limits.min or max(flat) > limits.max):
        raise ValueError(f"has a value beyond {datatype.name}, which goes from {limits.min} to {limits.max}")
    return np.array(flat, dtype=datatype.dtype)
