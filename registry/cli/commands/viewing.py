"""The commands that only look."""

from __future__ import annotations

from typing import Annotated

import typer

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.options import (
    AnyChannelArgument,
    AnyModelArgument,
    ChannelArgument,
    OutputOption,
    ReferenceArgument,
    StoreOption,
    references,
)

commands = typer.Typer()


@commands.command(
    "list",
    epilog="""
    ferry list
    ferry list digits -n 5
    ferry list digits -o json
    """,
)
def list_(
    model: AnyModelArgument = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="COUNT", min=1, help="The newest so many versions.")
    ] = 20,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the models, or the versions of one."""
    from ferryline.registry.cli import viewing

    viewing.list_models(store, output) if model is None else viewing.list_versions(
        store, output, model, limit
    )


@commands.command(
    epilog="""
    ferry show digits
    ferry show digits@7
    ferry show digits:staging
    """
)
def show(
    reference: ReferenceArgument,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show a version: what it is, where it comes from, how good it was."""
    from ferryline.registry.cli import viewing

    viewing.show(store, output, reference)


@commands.command(
    epilog="""
    ferry history digits
    ferry history digits:staging -n 5
    """
)
def history(
    reference: ChannelArgument,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="COUNT", min=1, help="The newest so many entries.")
    ] = 20,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show who changed a channel, when, why, from what to what."""
    from ferryline.registry.cli import viewing

    viewing.history(store, output, reference, limit)


@commands.command(
    epilog="""
    ferry diff digits@6 digits@7
    ferry diff digits@6 7 --no-weights
    ferry diff digits:production digits:staging -o json
    """
)
def diff(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="MODEL, MODEL@VERSION or MODEL:CHANNEL.", autocompletion=references),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="The same; a bare number is a version of A's model.", autocompletion=references
        ),
    ],
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Fetch both files and compare their parameters.")
    ] = True,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="COUNT", min=1, help="So many tensors at most.")
    ] = 10,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show what differs between two versions: contract, metrics, lineage, weights."""
    from ferryline.registry.cli import diffing

    diffing.diff(store, output, a, b, weights=weights, limit=limit)


@commands.command(
    epilog="""
    ferry status
    ferry status digits
    ferry status digits:staging -o json
    """
)
def status(
    reference: AnyChannelArgument = None,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show who serves what right now, and how far behind."""
    from ferryline.registry.cli import viewing

    viewing.status(store, output, reference)


@commands.command(
    epilog="""
    ferry watch
    ferry watch digits:production
    ferry watch digits -o json | jq .event
    """
)
def watch(
    reference: AnyChannelArgument = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", help="How long to wait between two looks.")
    ] = 1.0,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show changes as they happen, until Ctrl-C; when piped, a line for each (-o json: a JSON line)."""
    from ferryline.registry.cli import watching

    watching.watch(store, output, reference, interval)
