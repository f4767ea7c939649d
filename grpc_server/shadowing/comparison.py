"""Two versions' outputs for one request, held against each other: arrays in, a verdict out."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from ferryline.grpc_server.datatypes import Array
from ferryline.registry.documents import Role, TensorSpec

_NUMBERS = "fiub"


class Failure(StrEnum):
    """Why a request, or an output of it, could not be compared."""

    CONTRACT = "contract"
    """The two versions do not take and give the same, by their manifests."""
    RUN = "run"
    """The shadow could not be run on what the other one answered."""
    DTYPE = "dtype"
    """An output is of another type."""
    SHAPE = "shape"
    """An output has another shape."""
    NON_FINITE = "non_finite"
    """An output is not finite where the other one is, or infinite another way."""
    FAULT = "fault"
    """The comparison itself failed; the log says how."""


class Labels(NamedTuple):
    """Of so many labels so many are the same."""

    compared: int
    agreed: int


class Distance(NamedTuple):
    """The largest absolute difference between two numbers at the same place; 0 where there are none."""

    largest: float


Verdict = Labels | Distance | Failure


def is_measured(spec: TensorSpec) -> bool:
    """Whether an output is compared by how far it is off; if not, by what is the same.

    Probabilities and scores are measured, and so is any other float that is no label.
    """
    if spec.dtype == "string" or spec.role is Role.LABEL:
        return False
    return spec.role is not None or spec.dtype.startswith("float")


def compare(left: Array, right: Array, *, measured: bool) -> Verdict:
    """Hold an output of a shadow against that of the version that answered.

    Args:
        left: what was answered.
        right: what the shadow gave.
        measured: as `is_measured`.
    """
    if left.dtype != right.dtype:
        return Failure.DTYPE
    if left.shape != right.shape:
        return Failure.SHAPE
    if measured and left.dtype.kind in _NUMBERS:
        return _distance(left, right)
    return Labels(left.size, int(np.count_nonzero(left == right)))


def _distance(left: Array, right: Array) -> Verdict:
    # in double precision, where the difference of two halves or singles cannot overflow, nor that of integers
    with np.errstate(invalid="ignore", over="ignore"):
        largest = float(np.abs(np.subtract(left, right, dtype=np.float64)).max(initial=0.0))
    return Distance(largest) if math.isfinite(largest) else _distance_where_finite(left, right)


def _distance_where_finite(left: Array, right: Array) -> Verdict:
    finite = np.isfinite(left)
    elsewhere_alike = np.array_equal(left[~finite], right[~finite], equal_nan=True)
    if not (elsewhere_alike and np.isfinite(right[finite]).all()):
        return Failure.NON_FINITE
    left, right = left[finite], right[finite]
    with np.errstate(over="ignore"):
        largest = float(np.abs(np.subtract(left, right, dtype=np.float64)).max(initial=0.0))
    return Distance(min(largest, sys.float_info.max))  # two doubles can be further apart than a third can say
