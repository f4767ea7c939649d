"""The functions of the file that FERRY_SQL_FUNCTIONS names, for the SQL of any client.

    CREATE TEMPORARY SYSTEM FUNCTION Predict
    AS 'ferryline.flink_scoring.sql.functions.Predict' LANGUAGE PYTHON;

A model's contract is read when a client's helper process first needs the function, and holds as long as that.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ferryline.flink_scoring.sql.config import FunctionsConfig, functions_file, load_functions

if TYPE_CHECKING:
    from ferryline.flink_scoring.sql.wrapping import NamedFunction


def __getattr__(name: str) -> NamedFunction:
    if name.startswith("_"):
        raise AttributeError(name)
    return _function(name)


@cache
def _config() -> FunctionsConfig:
    return load_functions(functions_file())


@cache
def _function(name: str) -> NamedFunction:
    # pyflink starts a Java process where none is there, so this is imported only where one is needed
    from ferryline.flink_scoring.sql.contracts import plan_one
    from ferryline.flink_scoring.sql.wrapping import NamedFunction

    return NamedFunction(plan_one(_config(), name))
