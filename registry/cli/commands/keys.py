"""The commands about keys.

A command is a function under `@commands.command(epilog=…)`: its docstring's first line is the summary in
`ferry --help`, its epilog the examples, one a line, and its body imports what does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.options import OutputOption

commands = typer.Typer()


@commands.command(
    epilog="""
    ferry keygen trainer-2026
    ferry keygen trainer-2026 --out ~/keys --not-after 2027-01-01
    ferry keygen oncall --not-after 365d -o json
    """
)
def keygen(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What to call the key: who signs, and when made.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            file_okay=False,
            help="Where to put it.",
            show_default="keys beside your config file",
        ),
    ] = None,
    not_after: Annotated[
        str | None,
        typer.Option(
            metavar="DATE|SPAN",
            help="What it signs later is refused, what it signed before stays valid: 2027-01-01 or 365d.",
            show_default="for ever",
        ),
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make a key pair that signs versions and promotions, and say how to use it."""
    from ferryline.registry.cli import keys

    keys.keygen(output, name, out, not_after)


@commands.command(
    "keys",
    epilog="""
    ferry keys
    ferry keys -o json
    """,
)
def list_keys(output: OutputOption = OutputFormat.TABLE) -> None:
    """Show which keys are trusted here, until when, and what is asked of signatures."""
    from ferryline.registry.cli import keys

    keys.list_keys(output)
