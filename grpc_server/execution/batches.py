"""Requests joined into one run, and its outputs taken apart again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ferryline.grpc_server.datatypes import Array

Arrays = Mapping[str, Array]

# one row alone and among others may go through other kernels, which round differently
RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-5


def joined(feeds: Sequence[Arrays]) -> dict[str, Array]:
    """One run's inputs: the rows of all, in order. All have the same names, dtypes and trailing shapes."""
    return {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}


def split(results: Arrays, rows: Sequence[int]) -> list[dict[str, Array]] | None:
    """The outputs of each request, as views.

    Args:
        results: the outputs of the run.
        rows: how many rows each request had.

    Returns:
        None where an output has not as many rows as went in, so that nobody can say whose they are.
    """
    total = sum(rows)
    if any(array.shape[:1] != (total,) for array in results.values()):
        return None
    parts: list[dict[str, Array]] = []
    start = 0
    for count in rows:
        parts.append({name: array[start : start + count] for name, array in results.items()})
        start += count
    return parts


def alike(left: Arrays, right: Arrays) -> bool:
    """Whether two runs gave the same, up to rounding."""
    return all(_alike(array, right[name]) for name, array in left.items())


def _alike(left: Array, right: Array) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    # half precision has three digits
    return bool(
        np.allclose(
            left.astype(np.float64),
            right.astype(np.float64),
            rtol=RELATIVE_TOLERANCE,
            atol=ABSOLUTE_TOLERANCE,
            equal_nan=True,
        )
    )
