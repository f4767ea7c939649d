"""`ferry-sql`: Flink's stock SQL client, with models as functions."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand

from ferryline.flink_scoring.sql.client import (
    ClientPlan,
    client_command,
    client_environ,
    init_script,
    joined_statements,
)
from ferryline.flink_scoring.sql.config import FunctionsConfig, functions_file, load_functions
from ferryline.flink_scoring.sql.script import run_script
from ferryline.flink_scoring.sql.sources import PlannedFunction
from ferryline.registry.cli.edge import run_app
from ferryline.registry.errors import UsageError
from ferryline.registry.extras import Extra

_EXAMPLES = """Examples, for the cluster that --flink, FERRY_FLINK or FLINK_CONF_DIR names:

`ferry-sql --functions functions.toml` ·
`ferry-sql --functions functions.toml -e "SELECT Predict(a, b, c) FROM Features"` ·
`ferry-sql --functions functions.toml -f report.sql` ·
`ferry-sql --functions functions.toml --list`"""

_WIDTH = 160

# such as -Dname=value or -pyfs, which would be read as -D, -n … -e "=value", letter by letter
_CLIENTS_OWN = re.compile(r"-[^-ef].+", re.DOTALL)

app = typer.Typer(add_completion=True, pretty_exceptions_enable=False)


class PassingCommand(TyperCommand):
    """A command that leaves the client's options with one dash and many letters whole."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what is ours; the rest is in `ctx.args`, in order."""
        # the parser keeps what is no option as it is
        hidden = {each: f"\0{each}" if _CLIENTS_OWN.fullmatch(each) else each for each in args}
        super().parse_args(ctx, [hidden[each] for each in args])
        rest = [each.removeprefix("\0") for each in ctx.args]
        ctx.args = rest
        return rest


@app.command(
    cls=PassingCommand,
    epilog=_EXAMPLES,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def sql(
    context: typer.Context,
    functions: Annotated[
        Path | None, typer.Option(help="File of the functions. [FERRY_SQL_FUNCTIONS]", show_default=False)
    ] = None,
    execute: Annotated[
        list[str] | None, typer.Option("--execute", "-e", help="A statement to run; may be repeated.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A file of statements to run.")] = None,
    flink: Annotated[
        str | None,
        typer.Option(envvar="FERRY_FLINK", help="URL of the job manager. [that of FLINK_CONF_DIR]"),
    ] = None,
    *,
    listing: Annotated[bool, typer.Option("--list", help="Show the functions and open no client.")] = False,
) -> None:
    """Open Flink's SQL client with models as functions; what else is given goes to that client."""
    if execute and file:
        raise UsageError("-e and -f both say what to run; give one of them")
    plan = _prepared(functions_file(functions), flink, context.args)
    if not listing:
        with tempfile.TemporaryDirectory(prefix="ferry-sql-") as folder:
            raise typer.Exit(_run(plan, Path(folder), execute or [], file))


def _prepared(file: Path, flink: str | None, arguments: Sequence[str]) -> ClientPlan:
    """Plan all functions and show them: what is wrong with one is told before a client opens."""
    from ferryline.flink_scoring.sql.contracts import plan_functions

    config = load_functions(file)
    planned = list(plan_functions(config))
    width = None if sys.stderr.isatty() else _WIDTH
    Console(stderr=True, highlight=False, width=width).print(_table(config, planned))
    return ClientPlan(tuple(config.functions), file, flink, arguments=tuple(arguments))


def _table(config: FunctionsConfig, planned: Sequence[PlannedFunction]) -> Table:
    table = Table("function", "returns", box=None, header_style="dim", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for each in planned:
        signature = each.signature
        model = config.functions[signature.name].model
        table.add_row(escape(signature.call), escape(signature.result), escape(model))
    return table


def _run(plan: ClientPlan, folder: Path, statements: Sequence[str], file: Path | None) -> int:
    """Run the client to its end; its exit status is ours."""
    script = file
    if statements:
        script = folder / "statements.sql"
        script.write_text(joined_statements(statements), encoding="utf-8")
    plan = replace(plan, script=script)
    init = folder / "init.sql"
    init.write_text(init_script(plan, os.environ), encoding="utf-8")
    command, environ = client_command(plan, init, os.environ), client_environ(plan, os.environ)
    # Ctrl-C is the client's to answer: it ends a query there, not the client; a child starts with the default
    signal.signal(signal.SIGINT, lambda *_: None)
    if script is not None:
        return run_script(command, environ)
    return subprocess.run(command, env=environ, check=False).returncode  # noqa: S603 - the client's own command


def main() -> NoReturn:
    """The `ferry-sql` process."""
    run_app(app, "ferry-sql", needs=(Extra.FLINK, "numpy", "pandas", "pyarrow"))


if __name__ == "__main__":
    main()
