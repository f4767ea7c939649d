"""Answers batches of calls of one function: who scores which rows, and the result as SQL gets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ferryline.flink_scoring.sql.columns import Array, read_columns
from ferryline.flink_scoring.sql.config import Nulls, OnError
from ferryline.flink_scoring.sql.models import Answerer, Models
from ferryline.flink_scoring.sql.planning import Plan, plan_function
from ferryline.flink_scoring.sql.predicting import Predictions, Rows, predict
from ferryline.flink_scoring.sql.sources import PlannedFunction

# the version that serves, its canary, and what served before each
_KEPT_PLANS = 4


class UnscorableRowError(ValueError):
    """A row cannot be scored, and the function says `on_error = "fail"`."""


@dataclass(slots=True)
class Outcome:
    """What became of a batch of n calls.

    Attributes:
        result: n values, or for a ROW a frame with a column for each field; None where a row is not scored.
        scored: how many rows were scored.
        reasons: how many were not, by what was wrong.
        newest: who answered the rows that no canary got.
    """

    result: pd.Series | pd.DataFrame
    scored: int
    reasons: Counter[str]
    newest: Answerer


@dataclass(slots=True)
class _Share:
    answerer: Answerer
    rows: Rows
    found: Predictions


@dataclass(slots=True)
class Caller:
    """One function in one process.

    Args:
        planned: the function.
        models: who answers.
    """

    planned: PlannedFunction
    models: Models
    _plans: dict[str, Plan] = field(default_factory=dict)

    def call(self, given: Sequence[Any]) -> Outcome:
        """Answer a batch of calls.

        Args:
            given: for each argument a pandas series of n values, or a constant.

        Raises:
            UnscorableRowError: a row cannot be scored, and the function is to fail then.
        """
        spec = self.planned.spec
        columns = read_columns(self.planned.signature.arguments, given)
        shares = []
        for answerer, rows in self.models.shares(columns):
            part = columns if len(rows) == columns.count else columns.take(rows)
            plan, nan_allowed = self._plan(answerer), spec.nulls is Nulls.NAN
            shares.append(
                _Share(answerer, rows, predict(plan, answerer.session, part, nan_allowed=nan_allowed))
            )
        reasons = sum((Counter(share.found.reasons) for share in shares), Counter[str]())
        if reasons and spec.on_error is OnError.FAIL:
            raise UnscorableRowError(f"{self.planned.signature.name}: {_complaint(reasons, columns.count)}")
        for share in shares:
            self.models.answered(share.answerer, int(share.found.scored.sum()))
        return Outcome(
            self._result(shares, columns.count),
            columns.count - reasons.total(),
            reasons,
            shares[0].answerer,
        )

    def _plan(self, answerer: Answerer) -> Plan:
        if answerer.digest not in self._plans:
            if len(self._plans) >= _KEPT_PLANS:
                self._plans.clear()
            signature = self.planned.signature
            self._plans[answerer.digest] = plan_function(signature.name, self.planned.spec, answerer.facts)
        return self._plans[answerer.digest]

    def _result(self, shares: Sequence[_Share], count: int) -> pd.Series | pd.DataFrame:
        signature = self.planned.signature
        columns = [_joined(shares, number, count) for number in range(len(shares[0].found.fields))]
        if self.planned.spec.with_model:
            columns.append(_spread([(share.rows, share.answerer.version) for share in shares], count))
            columns.append(_spread([(share.rows, share.answerer.generation) for share in shares], count))
        if not signature.is_row:
            return columns[0]
        return pd.DataFrame(dict(zip((part.name for part in signature.fields), columns, strict=True)))


def _complaint(reasons: Counter[str], count: int) -> str:
    reason, rows = reasons.most_common(1)[0]
    return f"{reasons.total()} of {count} rows cannot be scored; {rows} because {reason}"


def _joined(shares: Sequence[_Share], number: int, count: int) -> pd.Series:
    """A field of the result for all rows, with None where one is not scored."""
    if len(shares) == 1 and shares[0].found.scored.all():
        return pd.Series(shares[0].found.fields[number])
    whole: Array = np.full(count, None, dtype=object)
    for share in shares:
        scored = share.found.scored
        if scored.any():
            whole[share.rows[scored]] = share.found.fields[number][scored]
    return pd.Series(whole, dtype=object)


def _spread(values: Sequence[tuple[Rows, int | None]], count: int) -> pd.Series:
    """A number for each row, by the share it is in."""
    whole: Array = np.full(count, None, dtype=object)
    for rows, value in values:
        whole[rows] = value
    return pd.Series(whole, dtype=object)
