"""How the parameters of two ONNX files differ: initializers, and the numbers that nodes carry as attributes.

The files are parsed and nothing of them is run or loaded from elsewhere. A tensor is read only where its
bytes are as many as its shape says, so that a shape that lies costs no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

from ferryline.registry.diff import TensorChange, WeightsDiff
from ferryline.registry.errors import RefusedError

LARGEST_FILE = 256 << 20
"""Bytes; larger files are not compared."""

LARGEST_COUNT = 100_000
"""So many tensors a file may have."""

_LISTED = 50

_Array = NDArray[Any]
_Numbers = NDArray[np.float64]
_NUMERIC = {
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT16,
    TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32,
    TensorProto.UINT64, TensorProto.BOOL,
}  # fmt: skip


def compare_weights(a: bytes, b: bytes) -> WeightsDiff:
    """The parameters of `b` that differ from those of `a`, the greatest change of norm first.

    Raises:
        RefusedError: one of them is no ONNX file (gate `parse`), or too large to be compared (gate `size`).
    """
    unread: list[str] = []
    old, new = _parameters(a, unread), _parameters(b, unread)
    changes = [change for name in dict.fromkeys([*old, *new]) if (change := _change(name, old, new))]
    changes.sort(key=_weight, reverse=True)
    return WeightsDiff(
        tensors=tuple(changes[:_LISTED]),
        unchanged=len({*old, *new}) - len(changes),
        unread=tuple(dict.fromkeys(unread))[:_LISTED],
    )


def _parameters(data: bytes, unread: list[str]) -> dict[str, _Array]:
    found: dict[str, _Array] = {}
    for name, value in _stored(_parse(data)):
        try:
            found[name] = _as_numbers(value)
        except (ValueError, TypeError, KeyError, OverflowError):  # what onnx raises for damaged tensors
            unread.append(name)
        if len(found) + len(unread) > LARGEST_COUNT:
            raise RefusedError("size", f"more than {LARGEST_COUNT} tensors", "Compare smaller files")
    return found


def _parse(data: bytes) -> ModelProto:
    if len(data) > LARGEST_FILE:
        raise RefusedError("size", f"{len(data)} bytes are too many to compare", "Compare smaller files")
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise RefusedError("parse", "the bytes are no ONNX file", "Publish a file that is") from error


def _stored(model: ModelProto) -> Iterator[tuple[str, Any]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for index, node in enumerate(model.graph.node):
        # classifiers of ai.onnx.ml keep their coefficients and trees in attributes
        place = node.name or f"{node.op_type}[{index}]"
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield f"{place}.{attribute.name}", attribute.t
            elif attribute.type == AttributeProto.FLOATS:
                yield f"{place}.{attribute.name}", attribute.floats


def _as_numbers(value: Any) -> _Array:
    if not isinstance(value, TensorProto):
        return np.asarray(value, dtype=np.float32)
    if value.data_location == TensorProto.EXTERNAL or value.data_type not in _NUMERIC:
        raise ValueError(value.name)
    size = math.prod(value.dims)
    if any(dim < 0 for dim in value.dims) or size > _numbers_in(value):
        raise ValueError(value.name)
    return numpy_helper.to_array(value)


def _numbers_in(tensor: TensorProto) -> int:
    """So many numbers the tensor can hold at most, by the bytes that are there."""
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return max(len(tensor.raw_data), *(len(field) for field in fields))


def _change(name: str, old: Mapping[str, _Array], new: Mapping[str, _Array]) -> TensorChange | None:
    # one pair at a time is widened: all of them at once could be eight times the files
    before = old[name].astype(np.float64) if name in old else None
    now = new[name].astype(np.float64) if name in new else None
    if before is None and now is not None:
        return TensorChange(name=name, change="added", shape=now.shape, norm_b=_norm(now))
    if before is not None and now is None:
        return TensorChange(name=name, change="removed", shape=before.shape, norm_a=_norm(before))
    if before is None or now is None or np.array_equal(before, now, equal_nan=True):
        return None
    return _both(name, before, now)


def _both(name: str, before: _Numbers, now: _Numbers) -> TensorChange:
    norms = {"norm_a": _norm(before), "norm_b": _norm(now)}
    if before.shape != now.shape:
        return TensorChange(name=name, change="reshaped", shape=now.shape, **norms)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities differ by no number
        difference = now - before
    return TensorChange(
        name=name,
        change="changed",
        shape=now.shape,
        norm_change=_norm(difference),
        largest=_finite(np.max(np.abs(difference))),
        **norms,
    )


def _norm(array: _Numbers) -> float | None:
    with np.errstate(over="ignore", invalid="ignore"):
        return _finite(np.linalg.norm(array))


def _finite(number: Any) -> float | None:
    return float(number) if math.isfinite(number) else None


def _weight(change: TensorChange) -> float:
    known = [number for number in (change.norm_change, change.norm_a, change.norm_b) if number is not None]
    return math.inf if change.change != "changed" else (known[0] if known else math.inf)
