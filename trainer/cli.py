"""`ferry-trainer`: learn from a stream and keep exporting versions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer

from ferryline.registry.cli.edge import run_app
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.signals import stop_on_signals
from ferryline.registry.extras import Extra
from ferryline.registry.logs import LogFormat, configure_logs
from ferryline.registry.settings import load_settings
from ferryline.streams.pipeline import Pipeline, load_pipeline

app = typer.Typer(
    help="Learn from a Kafka stream, export ONNX versions, publish and promote them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Example: ferry-trainer run digits.toml --metrics-port 8003",
)

PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file (TOML).", metavar="PIPELINE.toml")]


@app.command(
    epilog="Examples: ferry-trainer run digits.toml · ferry-trainer run digits.toml --until-records 10000"
)
def run(
    pipeline_file: PipelineFile,
    *,
    store: Annotated[str | None, typer.Option(help="Registry's store as a URL [env: FERRY_STORE].")] = None,
    kafka: Annotated[
        str | None, typer.Option(help="Bootstrap servers, host:port [env: FERRY_KAFKA].")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the restart state [env: FERRY_STATE].")
    ] = None,
    from_scratch: Annotated[bool, typer.Option(help="Forget the saved state and learn anew.")] = False,
    until_records: Annotated[
        int | None,
        typer.Option(min=1, help="End when so many records were read, earlier runs included."),
    ] = None,
    idle_exit: Annotated[
        float | None, typer.Option(min=0, help="End after so many seconds without a record.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics here; 0 takes a free port.")
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option(help="Fail at once when Kafka is down at the start, rather than wait.")
    ] = False,
    log_format: Annotated[LogFormat, typer.Option(help="Who reads the log.")] = LogFormat.CONSOLE,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more.")] = False,
) -> None:
    """Learn from a pipeline's topic until stopped; goes on where it last stopped.

    Ctrl-C finishes the step, saves the state and ends; nothing is published by half.
    """
    pipeline = load_pipeline(pipeline_file)
    settings = load_settings(store=store, kafka=kafka, state=state)
    configure_logs(log_format, verbose=verbose)
    # scikit-learn takes a second to import: --help and a wrong file need not wait for it
    from ferryline.trainer.loop import RunOptions
    from ferryline.trainer.service import run_trainer

    run_trainer(
        pipeline,
        settings,
        RunOptions(until_records=until_records, idle_exit=idle_exit, fail_fast=fail_fast),
        stop=stop_on_signals(),
        from_scratch=from_scratch,
        metrics_port=metrics_port,
    )


@app.command(epilog="Example: ferry-trainer check digits.toml -o json")
def check(
    pipeline_file: PipelineFile,
    *,
    output: Annotated[
        OutputFormat, typer.Option("-o", "--output", help="For people or for scripts.")
    ] = OutputFormat.TABLE,
) -> None:
    """Say whether a pipeline file is right, and what it means with all defaults."""
    pipeline = load_pipeline(pipeline_file)
    if output is OutputFormat.JSON:
        sys.stdout.write(orjson.dumps(pipeline.model_dump(mode="json")).decode() + "\n")
    else:
        _print_table(pipeline)


def _print_table(pipeline: Pipeline) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("key", "value", title=f"pipeline {pipeline.name}")
    for key, value in _flat(pipeline.model_dump(mode="json")):
        table.add_row(key, orjson.dumps(value).decode())
    Console().print(table)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


def main() -> NoReturn:
    """The entry point of `ferry-trainer`."""
    run_app(app, "ferry-trainer", needs=(Extra.TRAINER,))
