"""Makes the functions of a file known to a table environment: for Python jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyflink.table import TableEnvironment

from ferryline.flink_scoring.options import require_process_mode
from ferryline.flink_scoring.sql.config import FunctionsConfig, load_functions
from ferryline.flink_scoring.sql.contracts import plan_functions
from ferryline.flink_scoring.sql.kinds import Signature
from ferryline.flink_scoring.sql.session_settings import session_settings
from ferryline.flink_scoring.sql.wrapping import NamedFunction


def register(table_env: TableEnvironment, config: Path | FunctionsConfig) -> Mapping[str, Signature]:
    """Make all functions of a file known as temporary system functions.

    Settings that decide how fast Python functions are, and how the planner takes functions that are not
    deterministic, get values that suit these, unless they are set.

    Args:
        table_env: where queries will call them.
        config: the file, or what was read of one.

    Returns:
        What was planned, by name.

    Raises:
        FerryError: the file or a model is not as it must be; nothing is registered then.
    """
    functions = load_functions(config) if isinstance(config, Path) else config
    planned = list(plan_functions(functions))
    tune(table_env)
    for each in planned:
        table_env.create_temporary_system_function(each.signature.name, NamedFunction(each))
    return {each.signature.name: each.signature for each in planned}


def tune(table_env: TableEnvironment) -> None:
    """Set what these functions need, where nobody set it.

    Raises:
        UsageError: Flink is set to run Python functions where they cannot work.
    """
    config = table_env.get_config()
    require_process_mode(config.get("python.execution-mode", "process"))
    for name, value in session_settings().items():
        if config.get(name, "") == "":
            config.set(name, value)
