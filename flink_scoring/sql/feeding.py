"""The arguments of a batch of calls as the tensors that a model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ferryline.flink_scoring.narrowing import narrow
from ferryline.flink_scoring.sql.columns import EXACT, Array, Column, Columns, Fault, Mask
from ferryline.flink_scoring.sql.kinds import Kind
from ferryline.flink_scoring.sql.planning import Feed

_FREE = -1
_OBJECT = np.dtype(object)


def feed_tensors(
    columns: Columns, feeds: Sequence[Feed], *, nan_allowed: bool
) -> tuple[dict[str, Array], list[Fault]]:
    """The tensors for all rows, and what is wrong with some of them; those must not be given to the model.

    Args:
        columns: the arguments of n calls; where an array's rows may differ in length, all of one length.
        feeds: which tensor is made of which arguments.
        nan_allowed: whether the model is given NaN.

    Returns:
        An array [n, …] for each input by name, and the faults.
    """
    tensors, faults = {}, []
    for feed in feeds:
        parts = [columns.columns[position] for position in feed.positions]
        raw, found = _raw_matrix(feed, parts, columns.count)
        faults.extend(found)
        cast, beyond = _cast(feed, raw, parts, nan_allowed=nan_allowed)
        faults.extend(beyond)
        tensors[feed.tensor.name] = cast if _FREE in _trailing(feed) else _shaped(cast, _trailing(feed))
    return tensors, faults


def row_lengths(columns: Columns, feeds: Sequence[Feed]) -> Array | None:
    """For each row the lengths of its arrays that may differ, [n, arrays]; None where none may."""
    free = [columns.columns[feed.positions[0]] for feed in feeds if feed.width == _FREE]
    if not free:
        return None
    return np.array([[_length(value) for value in column.values] for column in free]).T


def _trailing(feed: Feed) -> tuple[int, ...]:
    return feed.tensor.shape[1:]


def _shaped(matrix: Array, trailing: tuple[int, ...]) -> Array:
    return matrix.reshape(len(matrix), *trailing)


def _raw_matrix(feed: Feed, parts: Sequence[Column], count: int) -> tuple[Array, list[Fault]]:
    """[n, width], in a dtype that holds whatever SQL gave."""
    if parts[0].argument.type.is_array:
        return _stacked(feed, parts[0], count)
    dtype = _wide(parts[0])
    if len(parts) == 1:
        return parts[0].values.astype(dtype, copy=False).reshape(count, 1), []
    matrix = np.empty((count, len(parts)), dtype)
    for place, part in enumerate(parts):
        matrix[:, place] = part.values
    return matrix, []


def _stacked(feed: Feed, part: Column, count: int) -> tuple[Array, list[Fault]]:
    """The rows of an ARRAY column below each other; one of another length is a fault."""
    lengths = np.fromiter(map(_length, part.values), np.int64, count)
    width = feed.width if feed.width != _FREE else int(lengths.max(initial=0))
    dtype = _wide(part)
    misfits: Mask = lengths != width
    empty = np.zeros(width, dtype) if dtype != _OBJECT else np.full(width, "", dtype)
    rows = [empty if misfit else value for value, misfit in zip(part.values, misfits, strict=True)]
    matrix = np.array(rows, dtype=object).reshape(count, width) if dtype == _OBJECT else _numbers(rows, width)
    faults = []
    wrong = misfits if part.nulls is None else misfits & ~part.nulls
    if wrong.any():
        given = int(lengths[wrong][0])
        faults.append(Fault(wrong, f"{part.argument.name} has {given} elements, the model takes {width}"))
    return matrix, [*faults, *_empty_elements(part, matrix)]


def _numbers(rows: Sequence[Array], width: int) -> Array:
    # NULLs among whole numbers and booleans come as NaN or None: floats hold both, and are checked below
    if not rows:
        return np.empty((0, width))
    return np.array([np.asarray(row, dtype=np.float64) if _has_objects(row) else row for row in rows])


def _has_objects(row: Array) -> bool:
    return np.asarray(row).dtype == _OBJECT


def _empty_elements(part: Column, matrix: Array) -> Iterator[Fault]:
    kind = part.argument.type.kind
    if kind is Kind.DOUBLE:
        return
    if kind is Kind.STRING:
        empty = np.array([[value is None for value in row] for row in matrix], dtype=np.bool_)
    elif matrix.dtype.kind == "f":  # one NULL makes floats of all whole numbers of the batch
        empty = ~(np.abs(matrix) < EXACT)
    else:
        return
    rows: Mask = empty.any(axis=1) if empty.size else np.zeros(len(matrix), np.bool_)
    if rows.any():
        yield Fault(rows, f"{part.argument.name} has an element that is NULL, or beyond 2^53 beside a NULL")


def _cast(
    feed: Feed, raw: Array, parts: Sequence[Column], *, nan_allowed: bool
) -> tuple[Array, Iterator[Fault]]:
    """The matrix in the tensor's dtype, and the rows that it cannot hold."""
    dtype = feed.tensor.dtype
    if dtype == "string":
        return raw, iter(())
    if dtype.startswith("float"):
        cast = narrow(raw, dtype)
        return cast, iter(()) if nan_allowed else _not_a_number(cast, parts)
    whole = np.nan_to_num(raw) if raw.dtype.kind == "f" else raw
    if dtype == "bool":
        return whole.astype(np.bool_, copy=False), iter(())
    with np.errstate(invalid="ignore"):
        return whole.astype(dtype), _beyond_integer(dtype, whole, parts)


def _not_a_number(cast: Array, parts: Sequence[Column]) -> Iterator[Fault]:
    missing = np.isnan(cast)
    if missing.any():
        yield from _by_part(missing, parts, "is NULL or NaN")


def _beyond_integer(dtype: str, whole: Array, parts: Sequence[Column]) -> Iterator[Fault]:
    limits = np.iinfo(dtype)
    beyond = (whole < max(limits.min, -(2**63))) | (whole > min(limits.max, 2**63 - 1))
    if beyond.any():
        yield from _by_part(beyond, parts, f"is beyond {dtype}")


def _by_part(wrong: Array, parts: Sequence[Column], reason: str) -> Iterator[Fault]:
    if len(parts) == 1:
        yield Fault(wrong.any(axis=1), f"{parts[0].argument.name} {reason}")
        return
    for place, part in enumerate(parts):
        if wrong[:, place].any():
            yield Fault(wrong[:, place], f"{part.argument.name} {reason}")


def _wide(part: Column) -> np.dtype[Any]:
    wide = {Kind.DOUBLE: np.float64, Kind.BIGINT: np.int64, Kind.BOOLEAN: np.bool_, Kind.STRING: object}
    return np.dtype(wide[part.argument.type.kind])


def _length(value: object) -> int:
    return len(value) if isinstance(value, np.ndarray | list | tuple) else -1
