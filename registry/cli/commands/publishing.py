"""The commands that bring files in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.options import (
    ChannelOption,
    ContractOption,
    ModelArgument,
    OutputOption,
    ReasonOption,
    ReferenceArgument,
    StoreOption,
)

commands = typer.Typer()


@commands.command(
    epilog="""
    ferry publish digits model.onnx
    ferry publish digits model.onnx --metric accuracy=0.97 --label team=vision
    ferry publish digits model.onnx --golden rows.json
    ferry publish digits model.onnx --promote -m 'first model'
    """
)
def publish(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(help="The ONNX file.", metavar="FILE", dir_okay=False)],
    promote: Annotated[bool, typer.Option("--promote", help="Promote the new version at once.")] = False,
    channel: ChannelOption = "production",
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")] = None,
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="May be repeated.")] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Rows with known outputs (.json, .npz); a version that gives others is refused everywhere.",
        ),
    ] = None,
    reason: ReasonOption = "",
    allow_contract_change: ContractOption = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Add a version of a model from an ONNX file."""
    from ferryline.registry.cli import publishing

    publishing.publish(
        store, output, model, file,
        labels=label or [], metrics=metric or [],
        golden=golden, promote_to=channel if promote else None,
        reason=reason, allow_contract_change=allow_contract_change,
    )  # fmt: skip


@commands.command(
    epilog="""
    ferry pull digits
    ferry pull digits@7 --to model.onnx --force
    ferry pull digits:staging --to - | sha256sum
    """
)
def pull(
    reference: ReferenceArgument,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="The file or folder to write; - is standard output.",
            show_default="MODEL-VERSION.onnx here",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Fetch the file of a version, checked against its digest."""
    from ferryline.registry.cli import pulling

    pulling.pull(store, output, reference, to, force=force)
