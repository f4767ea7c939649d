"""The SQL types that tensors are given as, and what a function looks like to a query."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A SQL type of one value."""

    DOUBLE = "DOUBLE"
    BIGINT = "BIGINT"
    STRING = "STRING"
    BOOLEAN = "BOOLEAN"


@dataclass(frozen=True, slots=True)
class SqlType:
    """A value, or an array of values."""

    kind: Kind
    is_array: bool = False

    def __str__(self) -> str:
        return f"ARRAY<{self.kind}>" if self.is_array else str(self.kind)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument.

    Attributes:
        name: what a query may call it (`Predict(age => a)`) and what errors call it.
        type: its type.
        feature: what the model calls it.
    """

    name: str
    type: SqlType
    feature: str

    def __str__(self) -> str:
        return f"{self.name} {self.type}"


@dataclass(frozen=True, slots=True)
class Field:
    """A part of the result: its name in a ROW, and its type."""

    name: str
    type: SqlType

    def __str__(self) -> str:
        return f"{self.name} {self.type}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a query is planned with: two versions of a model with the same one can take turns.

    Attributes:
        name: the function's name.
        arguments: in the order of a call.
        fields: what is returned; the whole of it where `is_row` is false.
        is_row: whether the result is a ROW of the fields.
    """

    name: str
    arguments: tuple[Argument, ...]
    fields: tuple[Field, ...]
    is_row: bool

    @property
    def result(self) -> str:
        """The type of the result, as SQL writes it."""
        if self.is_row:
            return f"ROW<{', '.join(map(str, self.fields))}>"
        return str(self.fields[0].type)

    @property
    def call(self) -> str:
        """How it is called: `Predict(age DOUBLE, town STRING)`."""
        return f"{self.name}({', '.join(map(str, self.arguments))})"

    def __str__(self) -> str:
        return f"{self.call} -> {self.result}"
