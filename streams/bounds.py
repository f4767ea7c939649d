"""Which rows of a matrix are finite and within the pipeline's bounds, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ferryline.streams.decoded import Rows
from ferryline.streams.pipeline import Features
from ferryline.streams.rejections import RecordFault, RejectReason


def rows_out_of_bounds(rows: Rows, spec: Features) -> npt.NDArray[np.int64]:
    """Positions of the rows, of [n, features], that hold a number which is not finite or out of bounds."""
    if not rows.size or _all_within(rows, spec):
        return np.empty(0, dtype=np.int64)
    low = -np.inf if spec.minimum is None else spec.minimum
    high = np.inf if spec.maximum is None else spec.maximum
    good = np.isfinite(rows) & (rows >= low) & (rows <= high)
    return np.flatnonzero(~good.all(axis=1))


def bounds_fault(row: Sequence[float], spec: Features) -> RecordFault:
    """What is wrong with the first number of a row that `rows_out_of_bounds` named."""
    for name, value in zip(spec.names, row, strict=True):
        if not np.isfinite(value):
            return RecordFault(RejectReason.NOT_FINITE, f"{name} is {value}")
        below = spec.minimum is not None and value < spec.minimum
        above = spec.maximum is not None and value > spec.maximum
        if below or above:
            detail = f"{name} is {_shown(value)}, {_wanted(spec)} expected"
            return RecordFault(RejectReason.OUT_OF_RANGE, detail)
    raise ValueError("all numbers are within their bounds")


def _all_within(rows: Rows, spec: Features) -> bool:
    low, high = rows.min(), rows.max()  # NaN when there is one
    return bool(
        np.isfinite(low)
        and np.isfinite(high)
        and (spec.minimum is None or low >= spec.minimum)
        and (spec.maximum is None or high <= spec.maximum)
    )


def _shown(value: float) -> str:
    return repr(value).removesuffix(".0")


def _wanted(spec: Features) -> str:
    if spec.minimum is None:
        return f"at most {spec.maximum:g}"
    return f"at least {spec.minimum:g}" if spec.maximum is None else f"{spec.minimum:g} to {spec.maximum:g}"
