"""The file of SQL functions: which models a query may call, by which names."""

from __future__ import annotations

import os
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from ferryline.flink_scoring.sql.naming import ModelName, parse_model_name
from ferryline.registry.errors import FerryError, UsageError

VARIABLE = "FERRY_SQL_FUNCTIONS"
"""Names the file for every process that a SQL client starts."""

_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"
Identifier = Annotated[str, Field(pattern=_IDENTIFIER)]

_EXAMPLE = '[functions.Predict]\nmodel = "wine"'
_HINTS = {
    "missing": "is missing; add it",
    "extra_forbidden": "is not a key of this table; correct its spelling or remove it",
}


class OnError(StrEnum):
    """What becomes of a row that the model cannot score."""

    NULL = "null"
    FAIL = "fail"


class Nulls(StrEnum):
    """What becomes of NULL and NaN in a number column, which a Python function cannot tell apart."""

    REFUSE = "refuse"
    NAN = "nan"


class Shape(StrEnum):
    """How the one matrix that a model takes is given to it."""

    COLUMNS = "columns"
    ARRAY = "array"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FunctionSpec(_Table):
    """One function.

    Attributes:
        model: `wine`, `wine:staging`, `wine@7`, `./model.onnx`, `file:///…` or `s3://bucket/key.onnx?endpoint=…`.
        arguments: names for the arguments in order, or which argument is which of the model's features.
        returns: an output's name or role, or several, which make a ROW; None for the label.
        with_model: whether version and generation are returned too.
        on_error: what a row that cannot be scored gives.
        nulls: whether NULL and NaN are given to the model.
        shape: one column for each number of a matrix, or one ARRAY column; None for columns where possible.
    """

    model: str = Field(min_length=1)
    arguments: tuple[Identifier, ...] | dict[Identifier, str] | None = None
    returns: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    with_model: bool = False
    on_error: OnError = OnError.NULL
    nulls: Nulls = Nulls.REFUSE
    shape: Shape | None = None

    @model_validator(mode="after")
    def _can_be_planned(self) -> Self:
        self.reference()
        _require_different(tuple(self.arguments or ()), "an argument")
        if isinstance(self.returns, tuple):
            _require_different(self.returns, "an output")
        return self

    def reference(self, folder: Path | None = None) -> ModelName:
        """What `model` names; a relative path is one below `folder`."""
        try:
            return parse_model_name(self.model, folder or Path())
        except FerryError as error:
            raise ValueError(f"model: {error}") from error


class FunctionsConfig(_Table):
    """The whole file.

    Attributes:
        registry: URL of the store that the models lie in; None takes that of FERRY_STORE.
        functions: by the name that a query calls.
    """

    registry: str | None = None
    functions: dict[Identifier, FunctionSpec] = Field(min_length=1)

    _folder: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        _require_different(tuple(name.lower() for name in self.functions), "a function (in whatever case)")
        return self

    @property
    def folder(self) -> Path:
        """Where paths that are relative begin."""
        return self._folder

    def reference(self, name: str) -> ModelName:
        """What a function's model is."""
        return self.functions[name].reference(self._folder)

    def function(self, name: str) -> FunctionSpec:
        """A function by its name.

        Raises:
            UsageError: there is none.
        """
        if name not in self.functions:
            raise UsageError(f"no function {name!r}; there are {', '.join(self.functions)}")
        return self.functions[name]


def load_functions(path: Path) -> FunctionsConfig:
    """Read a file of functions.

    Raises:
        UsageError: it cannot be read, is not TOML, or a value in it is wrong; file and key are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a file of functions:\n{_EXAMPLE}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    config = parse_functions(text, where=str(path))
    config._folder = path.absolute().parent  # noqa: SLF001 - its own module
    return config


def parse_functions(text: str, *, where: str) -> FunctionsConfig:
    """Read the text of such a file; `where` names it in messages.

    Raises:
        UsageError: as `load_functions`.
    """
    try:
        return FunctionsConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    except ValidationError as error:
        lines = dict.fromkeys(_fault_line(dict(fault)) for fault in error.errors(include_url=False))
        raise UsageError(f"{where}: {'; '.join(lines)}") from error


def functions_file(given: Path | None = None) -> Path:
    """The file in force: what was given, else what FERRY_SQL_FUNCTIONS names.

    Raises:
        UsageError: nothing names one.
    """
    named = os.environ.get(VARIABLE)
    if given is None and not named:
        raise UsageError(f"no file of functions: name one with --functions or {VARIABLE}:\n{_EXAMPLE}")
    return given or Path(named or "")


def _require_different(names: tuple[str, ...], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{what} is named {twice!r} twice")


_UNION_PARTS = ("tuple[", "dict[", "str", "constrained-str")


def _fault_line(fault: dict[str, Any]) -> str:
    # which form of a value was tried is part of pydantic's path, not of the file's
    parts = [str(part) for part in fault["loc"] if not str(part).startswith(_UNION_PARTS)]
    key = ".".join(part for part in parts if part != "[key]") or "the file"
    if hint := _HINTS.get(fault["type"]):
        return f"{key} {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float) else ""
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}"
