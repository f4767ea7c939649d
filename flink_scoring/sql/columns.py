"""The arguments of a batch of calls as arrays: what Flink gives as pandas columns, constants and NULL.

A column of numbers says NaN for NULL, and one of whole numbers comes as floats where it has a NULL. A
constant comes as itself and holds for every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ferryline.flink_scoring.sql.kinds import Argument, Kind, SqlType

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

EXACT = 2.0**53
"""Whole numbers beyond this are no longer exact in a column of floats."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that a model cannot score, and why."""

    rows: Mask
    reason: str


@dataclass(frozen=True, slots=True)
class Column:
    """One argument of n calls.

    Attributes:
        argument: what it is.
        values: n float64, int64, bool or objects (texts; arrays, for an ARRAY).
        nulls: which of them are NULL, None where none is; among floats, NULL is NaN.
    """

    argument: Argument
    values: Array
    nulls: Mask | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> Column:
        """The same of some rows."""
        return Column(self.argument, self.values[rows], None if self.nulls is None else self.nulls[rows])


@dataclass(frozen=True, slots=True)
class Columns:
    """All arguments of `count` calls.

    Attributes:
        count: how many calls.
        columns: the arguments.
        faults: rows that no model can score; whole numbers and booleans that are NULL stand there as 0.
    """

    count: int
    columns: tuple[Column, ...]
    faults: tuple[Fault, ...] = ()

    def take(self, rows: npt.NDArray[np.int64]) -> Columns:
        """The same of some rows, with what is wrong with them."""
        faults = tuple(Fault(fault.rows[rows], fault.reason) for fault in self.faults)
        return Columns(len(rows), tuple(column.take(rows) for column in self.columns), faults)

    def keys(self) -> Iterator[bytes]:
        """For each row, bytes that are the same wherever its arguments are."""
        lists = [list(column.values) for column in self.columns]
        for row in zip(*lists, strict=True):
            yield repr([np.asarray(value).tolist() for value in row]).encode()


def read_columns(arguments: Sequence[Argument], given: Sequence[Any]) -> Columns:
    """What Flink gives for a batch of calls.

    Args:
        arguments: of the function.
        given: for each a pandas series of n values, or a constant.
    """
    count = next((len(each) for each in given if isinstance(each, pd.Series)), 1)
    columns: list[Column] = []
    faults: list[Fault] = []
    for argument, each in zip(arguments, given, strict=True):
        series = each if isinstance(each, pd.Series) else pd.Series([each] * count)
        column = Column(argument, *_read(argument.type, series))
        columns.append(column)
        faults.extend(_faults(column, series))
    return Columns(count, tuple(columns), tuple(faults))


def _read(kind: SqlType, series: pd.Series) -> tuple[Array, Mask | None]:
    if kind.is_array or kind.kind is Kind.STRING:
        return series.to_numpy(dtype=object), _nulls(series)
    if kind.kind is Kind.DOUBLE:
        return series.to_numpy(dtype=np.float64, na_value=np.nan), None
    nulls = _nulls(series)
    values = series.to_numpy() if nulls is None else np.where(nulls, 0, series.to_numpy())
    return values.astype(np.int64 if kind.kind is Kind.BIGINT else np.bool_, copy=False), nulls


def _nulls(series: pd.Series) -> Mask | None:
    nulls: Mask = series.isna().to_numpy()
    return nulls if nulls.any() else None


def _faults(column: Column, series: pd.Series) -> Iterator[Fault]:
    """What no model can take, whichever it is."""
    name = column.argument.name
    if column.nulls is not None:
        yield Fault(column.nulls, f"{name} is NULL")
    if column.argument.type == SqlType(Kind.BIGINT) and series.dtype.kind == "f":
        inexact = (series.abs() >= EXACT).to_numpy()
        if inexact.any():
            yield Fault(inexact, f"{name} is beyond 2^53 and came beside a NULL, which makes it inexact")
