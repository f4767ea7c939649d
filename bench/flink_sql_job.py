"""A job for `bench.flink_sql`: datagen, one function, blackhole. Run by `flink run -pym`.

The bare function is what a person would write for one model of eight numbers: no registry, no NULL, no
refusal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import ScalarFunction, udf

from ferryline.flink_scoring.sql import register
from ferryline.flink_scoring.sql.registration import tune

BARE = "Bare"
COLUMNS = 8
# datagen gives 10,000 rows a second unless it is told otherwise
UNLIMITED = 2_000_000_000


class BareFunction(ScalarFunction):  # type: ignore[misc]  # pyflink is untyped
    """ONNX Runtime on whole batches, and nothing else."""

    def __init__(self, model: bytes) -> None:
        self._model = model

    def open(self, function_context: Any) -> None:  # noqa: ARG002 - Flink's form
        """Load the model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def eval(self, *columns: pd.Series) -> pd.Series:
        """The labels of one batch."""
        matrix = np.column_stack([column.to_numpy(np.float32) for column in columns])
        return pd.Series(self._session.run(["label"], {self._input: matrix})[0])


def main() -> None:
    """Submit the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--functions", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--call", required=True, help="such as 'Predict(c0, c1, c2)'")
    arguments = parser.parse_args()
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    tables.get_config().set("parallelism.default", "1")
    tune(tables)
    if arguments.call.startswith(BARE):
        bare = BareFunction(arguments.model.read_bytes())
        kinds = [DataTypes.DOUBLE()] * COLUMNS
        tables.create_temporary_function(
            BARE, udf(bare, input_types=kinds, result_type=DataTypes.BIGINT(), func_type="pandas")
        )
    else:
        register(tables, arguments.functions)
    columns = ", ".join(f"c{number} DOUBLE" for number in range(COLUMNS))
    limits = ", ".join(f"'fields.c{n}.min' = '-10', 'fields.c{n}.max' = '10'" for n in range(COLUMNS))
    tables.execute_sql(
        f"CREATE TEMPORARY TABLE rows_in ({columns}) WITH "
        f"('connector' = 'datagen', 'rows-per-second' = '{UNLIMITED}', {limits})"
    )
    tables.execute_sql("CREATE TEMPORARY TABLE nowhere (answer BIGINT) WITH ('connector' = 'blackhole')")
    tables.execute_sql(f"INSERT INTO nowhere SELECT {arguments.call} FROM rows_in")  # noqa: S608 - our own


if __name__ == "__main__":
    main()
