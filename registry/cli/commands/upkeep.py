"""The commands that keep a registry healthy.

A command is a function under `@commands.command(epilog=…)`: its docstring's first line is the summary in
`ferry --help`, its epilog the examples, one a line, and its body imports what does the work.
"""

from __future__ import annotations

from typing import Annotated

import typer

from registry.cli.formats import OutputFormat
from registry.cli.options import OutputOption, StoreOption
from registry.roles import Role

commands = typer.Typer()


@commands.command(
    epilog="""
    ferry doctor --store 's3://models?endpoint=http://127.0.0.1:9000'
    ferry doctor --as trainer
    ferry doctor --as consumer --consumer grpc-web1-4711
    """
)
def doctor(
    role: Annotated[
        Role | None,
        typer.Option(
            "--as",
            metavar="trainer|consumer|operator",
            help="Whom the credentials are for: exit 6 where they lack what that needs.",
        ),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option("--consumer", metavar="ID", help="Whose heartbeat they are to write; else anyone's."),
    ] = None,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Prove that the store keeps its promises, and show what these credentials may do; exit 6 if not."""
    from registry.cli import examining

    examining.doctor(store, output, role=role, consumer=consumer)
