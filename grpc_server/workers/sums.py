"""Counters of many workers as one: what a dead one had counted stays, so that no sum goes back."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Number = TypeVar("Number", int, float)


class Joining(Enum):
    """How the numbers of several workers become one."""

    SUM = auto()
    """It only rises: add them, those of the dead too."""
    NOW = auto()
    """It rises and falls: add those of the living."""
    LATEST = auto()
    """The largest of all."""


class Sums(Generic[Key, Number]):
    """Rows of numbers by key, each told by workers as it stands with them.

    Args:
        columns: how each number of a row is joined.
    """

    def __init__(self, columns: Sequence[Joining]) -> None:
        self._columns = tuple(columns)
        self._living: dict[int, dict[Key, tuple[Number, ...]]] = {}
        self._gone: dict[Key, tuple[Number, ...]] = {}

    def told(self, worker: int, rows: Mapping[Key, Sequence[Number]]) -> None:
        """A worker says how some of its rows stand; the others stand as before.

        A number that should only rise and is smaller began anew: the worker had forgotten it meanwhile.
        """
        known = self._living.setdefault(worker, {})
        for key, row in rows.items():
            before = known.get(key)
            if before is not None and self._began_anew(before, row):
                self._keep(key, before)
            known[key] = tuple(row)

    def gone(self, worker: int) -> None:
        """A worker is gone, and counts no more."""
        for key, row in self._living.pop(worker, {}).items():
            self._keep(key, row)

    def forget(self, key: Key) -> None:
        """Nobody asks for that row any more."""
        self._gone.pop(key, None)
        for rows in self._living.values():
            rows.pop(key, None)

    def __iter__(self) -> Iterator[Key]:
        keys = dict.fromkeys(self._gone)
        for rows in self._living.values():
            keys |= dict.fromkeys(rows)
        return iter(keys)

    def row(self, key: Key) -> tuple[Number, ...]:
        """The row of all workers together.

        Raises:
            KeyError: nobody has told of it.
        """
        parts = [rows[key] for rows in self._living.values() if key in rows]
        if key in self._gone:
            parts.append(self._gone[key])
        if not parts:
            raise KeyError(key)
        return self._joined(parts)

    def _began_anew(self, before: Sequence[Number], now: Sequence[Number]) -> bool:
        pairs = zip(self._columns, before, now, strict=True)
        return any(new < old for column, old, new in pairs if column is Joining.SUM)

    def _keep(self, key: Key, row: Sequence[Number]) -> None:
        ended = tuple(
            type(number)(0) if column is Joining.NOW else number
            for column, number in zip(self._columns, row, strict=True)
        )
        self._gone[key] = self._joined([self._gone[key], ended]) if key in self._gone else ended

    def _joined(self, parts: Sequence[Sequence[Number]]) -> tuple[Number, ...]:
        columns = zip(*parts, strict=True)
        return tuple(
            max(numbers) if how is Joining.LATEST else sum(numbers[1:], start=numbers[0])
            for how, numbers in zip(self._columns, columns, strict=True)
        )
