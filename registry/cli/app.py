"""`ferry`: the commands and their options. Each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from registry.cli.edge import run_app
from registry.cli.formats import OutputFormat

app = typer.Typer(
    name="ferry",
    help="The model registry: publish versions, promote them, roll back, and see who serves what.",
    epilog="Models are written MODEL, MODEL@VERSION or MODEL:CHANNEL (the default channel is production).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="For people or for scripts.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why, for the history.")]
ExpectOption = Annotated[
    int | None,
    typer.Option(
        metavar="GENERATION", min=0, help="Do it only if the channel is at this generation (0: no entry yet)."
    ),
]
WaitOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Return when every live consumer serves it; exit 7 and name the laggards.",
    ),
]
ChannelOption = Annotated[str, typer.Option("--channel", "-c", help="The channel.")]


def main() -> NoReturn:
    """The `ferry` process."""
    run_app(app, "ferry")


@app.command(epilog="Example: `ferry publish digits model.onnx --promote -m 'first model'`")
def publish(
    model: Annotated[str, typer.Argument(help="The model's name.", metavar="MODEL")],
    file: Annotated[Path, typer.Argument(help="The ONNX file.", metavar="FILE", dir_okay=False)],
    promote: Annotated[bool, typer.Option("--promote", help="Promote the new version at once.")] = False,
    channel: ChannelOption = "production",
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")] = None,
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="May be repeated.")] = None,
    reason: ReasonOption = "",
    allow_contract_change: Annotated[
        bool, typer.Option("--allow-contract-change", help="Let callers notice other inputs or outputs.")
    ] = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Add a version of a model from an ONNX file."""
    from registry.cli import publishing

    publishing.publish(
        store, output, model, file,
        labels=label or [], metrics=metric or [],
        promote_to=channel if promote else None, reason=reason, allow_contract_change=allow_contract_change,
    )  # fmt: skip


@app.command("list", epilog="Examples: `ferry list` · `ferry list digits -o json`")
def list_(
    model: Annotated[
        str | None, typer.Argument(help="Show this model's versions.", metavar="[MODEL]")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many versions.")] = 20,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the models, or the versions of one."""
    from registry.cli import viewing

    viewing.list_models(store, output) if model is None else viewing.list_versions(
        store, output, model, limit
    )


@app.command(epilog="Examples: `ferry show digits` · `ferry show digits@7` · `ferry show digits:staging`")
def show(
    reference: Annotated[
        str, typer.Argument(help="MODEL, MODEL@VERSION or MODEL:CHANNEL.", metavar="REFERENCE")
    ],
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show a version: what it is, where it comes from, how good it was."""
    from registry.cli import viewing

    viewing.show(store, output, reference)


@app.command(epilog="Example: `ferry history digits:staging`")
def history(
    reference: Annotated[str, typer.Argument(help="MODEL or MODEL:CHANNEL.", metavar="REFERENCE")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many entries.")] = 20,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show who changed a channel, when, why, from what to what."""
    from registry.cli import viewing

    viewing.history(store, output, reference, limit)


@app.command(epilog="Example: `ferry promote digits@7 --expect 12 --wait 10 -m 'better on rare digits'`")
def promote(
    reference: Annotated[str, typer.Argument(help="MODEL@VERSION.", metavar="MODEL@VERSION")],
    channel: ChannelOption = "production",
    expect: ExpectOption = None,
    wait: WaitOption = None,
    reason: ReasonOption = "",
    force: Annotated[bool, typer.Option("--force", help="Pass a hold, and lift it.")] = False,
    allow_contract_change: Annotated[
        bool, typer.Option("--allow-contract-change", help="Let callers notice other inputs or outputs.")
    ] = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make a version the one that a channel serves."""
    from registry.cli import changing

    changing.promote(
        store, output, reference, channel,
        expect=expect, wait=wait, reason=reason, force=force, allow_contract_change=allow_contract_change,
    )  # fmt: skip


@app.command(epilog="Examples: `ferry rollback digits` · `ferry rollback digits:staging --to 3 --wait 10`")
def rollback(
    reference: Annotated[str, typer.Argument(help="MODEL or MODEL:CHANNEL.", metavar="REFERENCE")],
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", min=1, help="Else the version that served before."),
    ] = None,
    expect: ExpectOption = None,
    wait: WaitOption = None,
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Go back to an older version, and hold the channel so that no automatic promotion undoes it."""
    from registry.cli import changing

    changing.rollback(store, output, reference, to=to, expect=expect, wait=wait, reason=reason)


@app.command(epilog="Example: `ferry hold digits -m 'freeze for the audit'`")
def hold(
    reference: Annotated[str, typer.Argument(help="MODEL or MODEL:CHANNEL.", metavar="REFERENCE")],
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Refuse automatic promotions of a channel until it is released."""
    from registry.cli import changing

    changing.hold(store, output, reference, reason=reason)


@app.command(epilog="Example: `ferry release digits`")
def release(
    reference: Annotated[str, typer.Argument(help="MODEL or MODEL:CHANNEL.", metavar="REFERENCE")],
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Let automatic promotions of a channel pass again."""
    from registry.cli import changing

    changing.release(store, output, reference, reason=reason)


@app.command(epilog="Examples: `ferry status` · `ferry status digits -o json`")
def status(
    reference: Annotated[
        str | None, typer.Argument(help="Only this model or channel.", metavar="[REFERENCE]")
    ] = None,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show who serves what right now, and how far behind."""
    from registry.cli import viewing

    viewing.status(store, output, reference)


@app.command(epilog="Example: `ferry doctor --store 's3://models?endpoint=http://127.0.0.1:9000'`")
def doctor(
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Prove that the store keeps the promises the registry is built on; exit 6 where it does not."""
    from registry.cli import viewing

    viewing.doctor(store, output)
