"""What a model answered, as the columns of a SQL result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ferryline.flink_scoring.sql.columns import Array
from ferryline.flink_scoring.sql.kinds import Kind
from ferryline.flink_scoring.sql.planning import Answer
from ferryline.registry.documents import Label

_LARGEST = np.iinfo(np.int64).max


def answer_columns(outputs: dict[str, Array], answers: Sequence[Answer], count: int) -> list[Array]:
    """The fields of the result, each an array of `count` values; of an ARRAY, objects that are arrays.

    Args:
        outputs: what the model gave, by name.
        answers: which field is made of which output.
        count: rows that the model was given.

    Raises:
        ValueError: the model did not give an answer for each row, or one that SQL cannot hold.
    """
    return [_column(answer, outputs[answer.tensor.name], count) for answer in answers]


def _column(answer: Answer, output: Array, count: int) -> Array:
    if len(output) != count:
        raise ValueError(f"{answer.tensor.name!r} has {len(output)} rows for {count}")
    values = _meant(output, answer.classes) if answer.classes else _held(output, answer.type.kind)
    if answer.type.is_array:
        return np.fromiter(values.reshape(count, -1), dtype=object, count=count)
    if values.size != count:
        raise ValueError(f"{answer.tensor.name!r} has {values.size} values for {count} rows")
    return values.reshape(count)


def _held(output: Array, kind: Kind) -> Array:
    if kind is Kind.BIGINT and output.dtype == np.uint64 and output.max(initial=0) > _LARGEST:
        raise ValueError("the model gave a number beyond BIGINT")
    dtypes = {Kind.DOUBLE: np.float64, Kind.BIGINT: np.int64, Kind.BOOLEAN: np.bool_, Kind.STRING: object}
    return output.astype(np.dtype(dtypes[kind]), copy=False)


def _meant(output: Array, classes: Sequence[Label]) -> Array:
    """The classes that numbers stand for, by position."""
    if output.size and (output.min() < 0 or output.max() >= len(classes)):
        raise ValueError(f"the model answered a class beyond its {len(classes)}")
    table: Any = np.array(classes, dtype=object)
    meant: Array = table[output.astype(np.int64)]
    return meant
