"""The scoring job's command line: `flink run -pym ferryline.flink_scoring.job --pipeline digits.toml`.

Under `-pym` this file runs as `__main__`, and what a `__main__` defines is pickled by value: so nothing that
a worker runs is defined here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer

from ferryline.flink_scoring.options import Guarantee, advise_on_latency, resolve_options
from ferryline.flink_scoring.positions import Start
from ferryline.flink_scoring.several import tell_apart
from ferryline.registry.cli.edge import run_app
from ferryline.registry.extras import Extra

log = structlog.get_logger(__name__)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def score(
    pipeline: Annotated[
        list[Path],
        typer.Option(
            help="Pipeline file, such as deploy/pipelines/digits.toml. Given again, one job scores them all."
        ),
    ],
    store: Annotated[str | None, typer.Option(help="URL of the registry's store. [FERRY_STORE]")] = None,
    kafka: Annotated[str | None, typer.Option(help="Bootstrap servers, host:port. [FERRY_KAFKA]")] = None,
    parallelism: Annotated[int | None, typer.Option(min=1, help="Slots to use. [the pipeline's]")] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Time between checkpoints. [the pipeline's]")
    ] = None,
    latency_ms: Annotated[
        int | None,
        typer.Option(min=5, help="How long a record may take where the job keeps up. [the pipeline's]"),
    ] = None,
    guarantee: Annotated[
        Guarantee, typer.Option(help="How often a record may appear in the output.")
    ] = Guarantee.EXACTLY_ONCE,
    start: Annotated[
        Start, typer.Option(help="Where to begin; `committed` falls back to the pipeline's start.")
    ] = Start.COMMITTED,
    restore: Annotated[
        str | None,
        typer.Option(metavar="newest|URL", help="Go on from a checkpoint or savepoint of this job."),
    ] = None,
) -> None:
    """Score a Kafka topic with a model that is swapped while the job runs.

    Examples, for the cluster that FLINK_CONF_DIR or -m names:

        flink run -d -pym ferryline.flink_scoring.job --pipeline deploy/pipelines/digits.toml

        flink run -d -pym ferryline.flink_scoring.job --pipeline digits.toml --guarantee at-least-once

        flink run -d -pym ferryline.flink_scoring.job --pipeline digits.toml --parallelism 2 --latency-ms 50

        flink run -d -pym ferryline.flink_scoring.job --pipeline digits.toml --pipeline phishing.toml

        flink run -d -pym ferryline.flink_scoring.job --pipeline digits.toml --restore newest
    """
    # after the arguments are read, so that a wrong one is told at once
    from ferryline.flink_scoring.preparation import prepare

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    every = tell_apart(
        [
            resolve_options(
                file,
                store=store,
                kafka=kafka,
                parallelism=parallelism,
                checkpoint_seconds=checkpoint_seconds,
                latency_ms=latency_ms,
                guarantee=guarantee,
                start=start,
            )
            for file in pipeline
        ]
    )
    for advice in filter(None, map(advise_on_latency, every)):
        log.info(advice)
    prepared = [prepare(options) for options in every]
    # PyFlink takes seconds to import: a topic that is not there is told without it
    from ferryline.flink_scoring.plan import submit

    submit(prepared, restore=restore)


def main() -> None:
    """Run as a process."""
    run_app(app, "ferryline.flink_scoring.job", needs=(Extra.FLINK, "pyflink", "kafka"))


if __name__ == "__main__":
    main()
