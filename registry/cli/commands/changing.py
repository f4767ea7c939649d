"""The commands that change what a channel serves."""

from __future__ import annotations

from typing import Annotated

import typer

from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.options import (
    ChannelArgument,
    ChannelOption,
    ContractOption,
    DryRunOption,
    ExpectOption,
    OutputOption,
    ReasonOption,
    StoreOption,
    VersionArgument,
    WaitOption,
)

commands = typer.Typer()


@commands.command(
    epilog="""
    ferry promote digits@7
    ferry promote digits@7 --channel staging -m 'try it out'
    ferry promote digits@7 --canary 5
    ferry promote digits@7 --dry-run
    ferry promote digits@7 --expect 12 --wait 10 -m 'better on rare digits'
    """
)
def promote(
    reference: VersionArgument,
    channel: ChannelOption = "production",
    canary: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", help="Serve it to so many percent only, beside the version that serves now."
        ),
    ] = None,
    expect: ExpectOption = None,
    wait: WaitOption = None,
    reason: ReasonOption = "",
    force: Annotated[bool, typer.Option("--force", help="Pass a hold, and lift it.")] = False,
    allow_contract_change: ContractOption = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make a version the one that a channel serves."""
    from ferryline.registry.cli import changing

    changing.promote(
        store, output, reference, channel,
        canary=canary, expect=expect, wait=wait, reason=reason, force=force,
        allow_contract_change=allow_contract_change, dry_run=dry_run,
    )  # fmt: skip


@commands.command(
    epilog="""
    ferry rollback digits
    ferry rollback digits:staging --to 3 --wait 10 -m 'worse on sevens'
    """
)
def rollback(
    reference: ChannelArgument,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", min=1, help="Else the version that served before."),
    ] = None,
    expect: ExpectOption = None,
    wait: WaitOption = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Go back to an older version, and hold the channel so that no automatic promotion undoes it."""
    from ferryline.registry.cli import changing

    changing.rollback(
        store, output, reference, to=to, expect=expect, wait=wait, reason=reason, dry_run=dry_run
    )


@commands.command(epilog="ferry hold digits -m 'freeze for the audit'")
def hold(
    reference: ChannelArgument,
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Refuse automatic promotions of a channel until it is released."""
    from ferryline.registry.cli import changing

    changing.hold(store, output, reference, reason=reason)


@commands.command(epilog="ferry release digits -m 'the audit is over'")
def release(
    reference: ChannelArgument,
    reason: ReasonOption = "",
    store: StoreOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Let automatic promotions of a channel pass again."""
    from ferryline.registry.cli import changing

    changing.release(store, output, reference, reason=reason)
