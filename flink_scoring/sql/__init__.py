"""Models as functions of Flink's SQL, from a file that names them.

config         the file of functions, checked
naming         what the `model` of a function is: a channel, a version, a file, an object
kinds          SQL types and signatures
planning       from a model's contract to a signature, and to what is done with its columns (pure)
columns, feeding, predicting, answering   a batch of calls from columns to tensors and back (pure)
calls          who scores which rows of a batch, and the result
models         the models of a worker: followed, or loaded once through the gate
contracts      reads contracts where a query is planned; sources  what it tells the workers
function       the pandas function that Flink calls; wrapping  its Java side, with names for arguments
registration   for Python jobs; rows  for DataStreams; functions  for any SQL client
cli, client    `ferry-sql`: the stock SQL client with the functions there
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ferryline.flink_scoring.sql.config import FunctionsConfig, load_functions
    from ferryline.flink_scoring.sql.registration import register
    from ferryline.flink_scoring.sql.rows import map_rows

__all__ = ["FunctionsConfig", "load_functions", "map_rows", "register"]

_HOMES = {
    "FunctionsConfig": "config",
    "load_functions": "config",
    "map_rows": "rows",
    "register": "registration",
}


def __getattr__(name: str) -> Any:
    # pyflink takes seconds to import, which `ferry-sql --help` need not wait for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
