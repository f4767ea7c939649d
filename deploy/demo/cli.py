"""`ferry-demo`, which `make demo` runs."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer

from ferryline.registry.cli.edge import run_app
from ferryline.registry.extras import Extra
from ferryline.registry.folders import user_folder

PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog="Examples: `ferry-demo` · `ferry-demo --seconds 120` · `DEMO_SECONDS=120 make demo`")
def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            envvar="DEMO_SECONDS",
            min=10,
            help="Play the script within so many seconds once all is up, print a JSON summary, end.",
            show_default="live until Ctrl-C",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Records per second.")] = 300.0,
    faults: Annotated[
        float, typer.Option(min=0, max=1, help="The share of records that are broken on purpose.")
    ] = 0.01,
    pipeline: Annotated[
        Path, typer.Option(help="The pipeline to play; digits are fed into it.", show_default="digits.toml")
    ] = PIPELINES / "digits.toml",
    home: Annotated[
        Path | None,
        typer.Option(
            help="Where the demo's own stack lives; wiped at the start.", show_default="a folder of yours"
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running at the end.")] = False,
) -> None:
    """A model learns from a Kafka stream, is published, swapped in Flink and gRPC, and rolled back; live."""
    from ferryline.deploy.demo.display import Display
    from ferryline.deploy.demo.play import Plan, play_live, play_script, require_good, stage
    from ferryline.deploy.stack.local import LocalStack

    display = Display()
    folder = home or user_folder("state") / "demo"
    stack = LocalStack(home=folder)
    plan = Plan(pipeline, rate, faults)
    with ExitStack() as cleanup:
        stack.down(wipe=True)
        if not keep:
            cleanup.callback(stack.down)
        display.say("starting Kafka, MinIO and Flink; the first time they are downloaded and built (minutes)")
        addresses = stack.up(progress=display.say)
        # this process is a client of its own stack, and clients read credentials from the environment
        os.environ.update(addresses.environ())
        display.say("to look around from another terminal:")
        for line in addresses.exports().splitlines():
            display.say(f"  {line}")
        play = cleanup.enter_context(stage(stack, plan, display))
        cleanup.callback(display.say, "stopping everything that was started")
        cleanup.enter_context(display.live())
        if seconds is None:
            play_live(play)
            return
        summary = play_script(play, seconds)
    sys.stdout.buffer.write(orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()
    require_good(summary)


def main() -> NoReturn:
    """The `ferry-demo` process."""
    run_app(app, "ferry-demo", needs=(Extra.STACK,))
