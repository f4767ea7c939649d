"""A batch of calls scored: arguments in, columns of the result out. No Flink, registry or thread in it.

The model is run once for all rows that it can score, never once for each. Rows that it refuses all the same
are found by halving, so that one costs its neighbours a handful of runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ferryline.flink_scoring.sql.answering import answer_columns
from ferryline.flink_scoring.sql.columns import Array, Columns, Fault, Mask
from ferryline.flink_scoring.sql.feeding import feed_tensors, row_lengths
from ferryline.flink_scoring.sql.planning import Plan

Rows = npt.NDArray[np.int64]


class Session(Protocol):
    """What runs a model; see `ferryline.model_runtime.session.OnnxSession`."""

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """The outputs by name; raises ValueError where the model cannot be run on these inputs."""
        ...


@dataclass(slots=True)
class Predictions:
    """What became of n calls.

    Attributes:
        fields: for each field of the result n values; those of rows that were not scored mean nothing.
        scored: which rows were scored.
        reasons: why others were not: how many rows by what was wrong first.
    """

    fields: list[Array]
    scored: Mask
    reasons: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, plan: Plan, count: int) -> Predictions:
        """Nothing is scored yet."""
        return cls([np.empty(0)] * len(plan.answers), np.zeros(count, np.bool_))


def predict(plan: Plan, session: Session, columns: Columns, *, nan_allowed: bool = False) -> Predictions:
    """Score all rows that can be scored.

    Args:
        plan: the function for this version of the model.
        session: the version.
        columns: the arguments of n calls.
        nan_allowed: whether the model is given NaN, which among floats is NULL too.
    """
    found = Predictions.empty(plan, columns.count)
    good = ~_refuse(found, np.arange(columns.count), columns.faults)
    lengths = row_lengths(columns, plan.feeds)
    for rows in _alike(np.flatnonzero(good), lengths):
        _predict_alike(found, plan, session, columns.take(rows), rows, nan_allowed=nan_allowed)
    return found


def _alike(rows: Rows, lengths: Array | None) -> list[Rows]:
    """The rows in groups whose arrays have the same lengths: each group is one run."""
    if lengths is None:
        return [rows] if len(rows) else []
    _, group = np.unique(lengths[rows], axis=0, return_inverse=True)
    return [rows[group.ravel() == number] for number in range(int(group.max(initial=-1)) + 1)]


def _predict_alike(
    found: Predictions, plan: Plan, session: Session, columns: Columns, rows: Rows, *, nan_allowed: bool
) -> None:
    tensors, faults = feed_tensors(columns, plan.feeds, nan_allowed=nan_allowed)
    good = ~_refuse(found, rows, faults)
    if not good.all():
        tensors, rows = {name: tensor[good] for name, tensor in tensors.items()}, rows[good]
    _run(found, plan, session, tensors, rows)


def _run(found: Predictions, plan: Plan, session: Session, tensors: dict[str, Array], rows: Rows) -> None:
    if not len(rows):
        return
    wanted = list(dict.fromkeys(answer.tensor.name for answer in plan.answers))
    try:
        fields = answer_columns(session.run(tensors, wanted), plan.answers, len(rows))
    except ValueError as error:
        if len(rows) == 1:
            _count(found, f"the model refuses it: {error}", 1)
            return
        half = len(rows) // 2
        for part in (slice(None, half), slice(half, None)):
            _run(found, plan, session, {name: tensor[part] for name, tensor in tensors.items()}, rows[part])
        return
    _keep(found, fields, rows)


def _keep(found: Predictions, fields: list[Array], rows: Rows) -> None:
    count = len(found.scored)
    if len(rows) == count:  # all of them: nothing to put in its place
        found.fields = fields
    else:
        found.fields = [_placed(old, new, rows, count) for old, new in zip(found.fields, fields, strict=True)]
    found.scored[rows] = True


def _placed(old: Array, new: Array, rows: Rows, count: int) -> Array:
    values: npt.NDArray[Any] = old if len(old) == count else np.zeros(count, new.dtype)
    values[rows] = new
    return values


def _refuse(found: Predictions, rows: Rows, faults: Sequence[Fault]) -> Mask:
    """Which of `rows` have a fault; each is counted once, for what was found first."""
    refused: Mask = np.zeros(len(rows), np.bool_)
    for fault in faults:
        first = int(np.count_nonzero(fault.rows & ~refused))
        if first:
            _count(found, fault.reason, first)
        refused |= fault.rows
    return refused


def _count(found: Predictions, reason: str, rows: int) -> None:
    found.reasons[reason] = found.reasons.get(reason, 0) + rows
