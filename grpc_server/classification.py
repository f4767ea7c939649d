"""The `classification` parameter of a requested output: its highest elements instead of all.

Source: Triton's classification extension. For each row of the batch the output becomes BYTES with
`value:index` or `value:index:label` for each of the highest elements, the highest first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.errors import InvalidRequestError
from ferryline.protos.grpc_service_pb2 import InferParameter
from ferryline.registry.documents import Label

PARAMETER = "classification"


def wanted_count(parameters: Mapping[str, InferParameter], what: str) -> int:
    """How many elements of each row a request wants; 0 where it wants the tensor as it is.

    Raises:
        InvalidRequestError: the parameter is no number of elements.
    """
    if PARAMETER not in parameters:
        return 0
    parameter = parameters[PARAMETER]
    choice = parameter.WhichOneof("parameter_choice")
    count: int = parameter.uint64_param if choice == "uint64_param" else parameter.int64_param
    if choice not in {"int64_param", "uint64_param"} or count < 0:
        raise InvalidRequestError(f"the parameter {PARAMETER!r} of {what} must be a whole number of classes")
    return count


def highest(array: Array, count: int, *, by_row: bool, labels: Sequence[Label] = ()) -> Array:
    """The `count` highest elements of each row, as text; of equal ones the first comes first.

    Args:
        array: a tensor of numbers.
        count: how many; all where there are fewer.
        by_row: whether the first dimension is the batch; else the whole tensor is one row.
        labels: what the elements of a row stand for; not used where there are not as many.
    """
    rows = array.reshape(len(array) if by_row else 1, math.prod(array.shape[1:] if by_row else array.shape))
    width = rows.shape[1]
    keys = np.nan_to_num(rows, nan=-np.inf) if rows.dtype.kind == "f" else rows
    # sorted upwards from the last element, so that of equal ones the first is the last
    order = width - 1 - np.argsort(keys[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    names = [f":{label}" for label in labels] if len(labels) == width else [""] * width
    texts = [
        [f"{_number(row[index])}:{index}{names[index]}" for index in indices]
        for row, indices in zip(rows.tolist(), order.tolist(), strict=True)
    ]
    result = np.array(texts, dtype=object).reshape(len(rows), min(count, width))
    return result if by_row else result[0]


def _number(value: Any) -> str:
    """As Triton writes it: six decimals, whatever the size."""
    return f"{value:f}" if isinstance(value, float) else str(int(value))
