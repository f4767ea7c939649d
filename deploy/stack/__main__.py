"""The `ferry-stack` process: `python -m ferryline.deploy.stack`."""

import signal
from types import FrameType
from typing import NoReturn

import typer

from ferryline.registry.cli.edge import run_app
from ferryline.registry.extras import Extra


def main() -> NoReturn:
    """Run as a process."""
    signal.signal(signal.SIGTERM, _interrupt)  # a terminated `up` tidies up as an interrupted one does
    run_app(_app, "ferry-stack", needs=(Extra.STACK, "httpx", "jgo", "psutil"))


def _app() -> typer.Typer:
    from ferryline.deploy.stack.cli import app

    return app


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
