"""The arguments and options that several commands share, so that they mean the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from ferryline.registry.cli.formats import OutputFormat


def channels(incomplete: str) -> list[str]:
    """Models and channels for the shell."""
    from ferryline.registry.cli.completion import complete

    return complete(incomplete, versions=False)


def references(incomplete: str) -> list[str]:
    """Models, versions and channels for the shell."""
    from ferryline.registry.cli.completion import complete

    return complete(incomplete, versions=True)


def models(incomplete: str) -> list[str]:
    """Models for the shell."""
    from ferryline.registry.cli.completion import complete

    return [found for found in complete(incomplete, versions=False) if ":" not in found]


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="FERRY_STORE",
        help="Where the registry lies: s3://bucket/prefix?endpoint=http://host:port or file:///folder.",
        show_default="a folder of yours",
    ),
]
OutputOption = Annotated[
    OutputFormat, typer.Option("--output", "-o", metavar="table|json", help="For people or for scripts.")
]
ReasonOption = Annotated[
    str, typer.Option("--reason", "-m", metavar="TEXT", help="Why, for the history.", show_default=False)
]
ExpectOption = Annotated[
    int | None,
    typer.Option(
        metavar="GENERATION", min=0, help="Do it only if the channel is at this generation (0: no entry yet)."
    ),
]
WaitOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Return when every live consumer serves it; exit 7 and name the laggards."
    ),
]
ChannelOption = Annotated[str, typer.Option("--channel", "-c", metavar="CHANNEL", help="The channel.")]
ContractOption = Annotated[
    bool, typer.Option("--allow-contract-change", help="Let callers notice other inputs or outputs.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Decide everything and write nothing; the exit code is the same.")
]

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model's name.", autocompletion=models)
]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="REFERENCE", help="MODEL, MODEL@VERSION or MODEL:CHANNEL.", autocompletion=references
    ),
]
VersionArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL@VERSION", help="A version of a model.", autocompletion=references),
]
ChannelArgument = Annotated[
    str, typer.Argument(metavar="REFERENCE", help="MODEL or MODEL:CHANNEL.", autocompletion=channels)
]
AnyChannelArgument = Annotated[
    str | None,
    typer.Argument(metavar="REFERENCE", help="Only this model or channel.", autocompletion=channels),
]
AnyModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="Show this model's versions.", autocompletion=models),
]
