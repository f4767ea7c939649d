"""Functions on a DataStream of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyflink.datastream import DataStream
from pyflink.table import StreamTableEnvironment
from pyflink.table.expressions import call, col

from ferryline.flink_scoring.sql.config import FunctionsConfig, load_functions
from ferryline.flink_scoring.sql.contracts import plan_one
from ferryline.flink_scoring.sql.registration import tune
from ferryline.flink_scoring.sql.wrapping import NamedFunction

RESULT = "prediction"


def map_rows(
    stream: DataStream,
    config: Path | FunctionsConfig,
    function: str,
    columns: Sequence[str],
    *,
    result: str = RESULT,
) -> DataStream:
    """Score each row of a stream: the row, and the result of a function of some of its columns behind it.

    A Python function of a DataStream gets one element at a time, so the stream becomes a table and a stream
    again: the model scores whole batches then, as in a query. Timestamps and watermarks are not carried.

    Args:
        stream: rows whose fields have names (`Types.ROW_NAMED`).
        config: the file of functions, or what was read of one.
        function: one of them.
        columns: the fields that are its arguments, in order.
        result: the name of the new field.

    Returns:
        A stream of rows.

    Raises:
        FerryError: the file or the model is not as it must be.
    """
    functions = load_functions(config) if isinstance(config, Path) else config
    predict = NamedFunction(plan_one(functions, function))
    tables = StreamTableEnvironment.create(stream.get_execution_environment())
    tune(tables)
    scored = tables.from_data_stream(stream).select(
        col("*"), call(predict, *(col(name) for name in columns)).alias(result)
    )
    return tables.to_data_stream(scored)
