"""The commands that keep a registry healthy.

A command is a function under `@commands.command(epilog=…)`: its docstring's first line is the summary in
`ferry --help`, its epilog the examples, one a line, and its body imports what does the work.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.options import DryRunOption, ModelArgument, OutputOption, StoreOption
from ferryline.registry.roles import Role

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
    from ferryline.registry.cli import examining

    examining.doctor(store, output, role=role, consumer=consumer)


@commands.command(
    epilog="""
    ferry gc --dry-run
    ferry gc --keep-versions 50 --rollback-depth 20
    ferry gc --grace 7d -o json
    """
)
def gc(
    dry_run: DryRunOption = False,
    keep_versions: Annotated[
        int | None,
        typer.Option(
            "--keep-versions",
            metavar="COUNT",
            min=1,
            help="Of every model so many of the newest versions.",
            show_default="20",
        ),
    ] = None,
    rollback_depth: Annotated[
        int | None,
        typer.Option(
            "--rollback-depth",
            metavar="COUNT",
            min=0,
            help="What the newest so many entries of each channel name, and so many steps back.",
            show_default="10",
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="SPAN",
            help="How long a file is garbage before it goes: 90m, 24h, 7d.",
            show_default="24h",
        ),
    ] = None,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Free the space of model files that nothing needs any more; histories stay."""
    from ferryline.registry.cli import upkeep

    upkeep.gc(
        store, output,
        dry_run=dry_run, keep_versions=keep_versions, rollback_depth=rollback_depth, grace=grace,
    )  # fmt: skip


@commands.command(
    epilog="""
    ferry verify
    ferry verify digits
    ferry verify -o json
    """
)
def verify(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model.")] = None,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read every log and file, and recompute every digest, chain and signature; exit 6 on damage."""
    from ferryline.registry.cli import upkeep

    upkeep.verify(store, output, model)


@commands.command(
    epilog="""
    ferry refusals digits
    ferry refusals digits -n 3 -o json
    """
)
def refusals(
    model: ModelArgument,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="COUNT", min=1, help="The newest so many refusals.")
    ] = 20,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show which candidates were refused: by which gate, why, and what helps."""
    from ferryline.registry.cli import upkeep

    upkeep.refusals(store, output, model, limit)
