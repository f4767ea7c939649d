"""The `ferry-feed` process: `python -m ferryline.deploy.feed`."""

from typing import NoReturn

import typer

from ferryline.registry.cli.edge import run_app
from ferryline.registry.extras import Extra


def main() -> NoReturn:
    """Run as a process."""
    run_app(_app, "ferry-feed", needs=(Extra.STACK, "numpy", "kafka"))


def _app() -> typer.Typer:
    from ferryline.deploy.feed.cli import app

    return app


if __name__ == "__main__":
    main()
