"""Hands the job to Flink."""

from __future__ import annotations

from pyflink.table import EnvironmentSettings, TableEnvironment, TableResult

from flink_scoring import statements
from flink_scoring.function import FunctionSpec, score_function
from flink_scoring.options import JobOptions, require_process_mode
from flink_scoring.topics import OutputLimits


def submit(options: JobOptions, limits: OutputLimits) -> TableResult:
    """Submit the job to the cluster that `flink run` names.

    Raises:
        UsageError: Flink is set to run Python functions where they cannot work.
    """
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    config = tables.get_config()
    require_process_mode(config.get("python.execution-mode", "process"))
    for name, value in statements.job_settings(options).items():
        config.set(name, value)
    spec = FunctionSpec(options.pipeline, options.store, limits.largest_dead_value, options.signatures)
    tables.create_temporary_function(statements.FUNCTION, score_function(spec))
    tables.execute_sql(statements.source_table(options))
    tables.execute_sql(statements.sink_table(options, limits))
    return tables.execute_sql(statements.insert_statement(options))
