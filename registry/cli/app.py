"""`ferry`: its commands put together. Their signatures lie in `commands`, what they do beside this file."""

from __future__ import annotations

from typing import ClassVar, NoReturn

import typer

from ferryline.registry.cli.commands import changing, keys, publishing, upkeep, viewing
from ferryline.registry.cli.edge import run_app
from ferryline.registry.cli.lazy import LazyGroup


class FerryGroup(LazyGroup):
    """All commands of `ferry`, in the order of its help."""

    sections: ClassVar = {
        "Publish and fetch": publishing.commands,
        "Change what a channel serves": changing.commands,
        "Look": viewing.commands,
        "Keys": keys.commands,
        "Upkeep": upkeep.commands,
    }


app = typer.Typer(
    name="ferry",
    cls=FerryGroup,
    help="The model registry: publish versions, promote them, roll back, and see who serves what.",
    epilog="Models are written MODEL, MODEL@VERSION or MODEL:CHANNEL (the default channel is production).",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _ferry() -> None:
    """A callback makes this a group; what the group is for stands above."""


def main() -> NoReturn:
    """The `ferry` process."""
    run_app(app, "ferry")
