"""`ferry-feed`: replay a data set into Kafka."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ferryline.deploy.feed.datasets import DatasetName, load_dataset
from ferryline.deploy.feed.producer import FeedProducer
from ferryline.deploy.feed.replay import Replay, ReplayReport
from ferryline.deploy.feed.schedule import sample_order
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.signals import stop_on_signals
from ferryline.registry.settings import load_settings
from ferryline.streams.errors import BrokerUnreachableError

_FLUSH = 30.0

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.command(epilog="Examples: ferry-feed digits --rate 300 · ferry-feed phishing --count 5000 --faults 0.01")
def feed(
    dataset: Annotated[DatasetName, typer.Argument(help="What to replay.")],
    *,
    rate: Annotated[float, typer.Option(min=0.01, help="Records per second.")] = 10.0,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
    loops: Annotated[int | None, typer.Option(min=1, help="End after so many passes over the data.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Shuffle each pass; without it, the original order.")
    ] = None,
    faults: Annotated[
        float, typer.Option(min=0, max=1, help="Share of bad records, of each kind in turn.")
    ] = 0.0,
    topic: Annotated[str | None, typer.Option(help="Send here instead of the data set's own topic.")] = None,
    partitions: Annotated[int, typer.Option(min=1, help="Of the topic, when it has to be created.")] = 1,
    kafka: Annotated[
        str | None, typer.Option(help="Bootstrap servers, host:port [env: FERRY_KAFKA].")
    ] = None,
    output: Annotated[
        OutputFormat, typer.Option("-o", "--output", help="How to report at the end.")
    ] = OutputFormat.TABLE,
) -> None:
    """Replay a data set into its topic, over and over until told otherwise.

    Ctrl-C sends what is under way and reports.
    """
    data = load_dataset(dataset)
    topic = topic or data.topic
    bootstrap = load_settings(kafka=kafka).kafka
    producer = FeedProducer(bootstrap, topic, partitions=partitions)
    order = sample_order(len(data.samples), loops=loops, count_limit=count, seed=seed)
    replay = Replay(data, order, rate=rate, faults=faults, seed=seed or 0)
    total = _total(len(data.samples), loops, count)
    stop = stop_on_signals()
    begun = time.monotonic()
    try:
        with _progress_bar() as bar:
            task = bar.add_task(f"{data.name} → {topic}", total=total)
            replay.run(producer, stop, lambda sent: bar.update(task, completed=sent))
    finally:
        seconds = time.monotonic() - begun
        producer.close(_FLUSH)
    report = replay.report(producer, topic=topic, seconds=seconds)
    _print_report(report, output)
    if report.acknowledged < report.sent:
        missing = report.sent - report.acknowledged
        raise BrokerUnreachableError(bootstrap, f"{missing} of {report.sent} records were not acknowledged")


def _total(samples: int, loops: int | None, count: int | None) -> int | None:
    passes = None if loops is None else samples * loops
    return min((limit for limit in (passes, count) if limit is not None), default=None)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _print_report(report: ReplayReport, output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        sys.stdout.write(orjson.dumps(report).decode() + "\n")
        return
    bad = f", {sum(report.faults.values())} of them bad on purpose" if report.faults else ""
    Console().print(
        f"{report.acknowledged} of {report.sent} records acknowledged by {report.topic}{bad} "
        f"in {report.seconds:.1f} s ({report.per_second:.0f}/s)",
        highlight=False,
    )
