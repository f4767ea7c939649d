"""`ferry-dlq`: the dead letters of a scoring pipeline, counted, shown and replayed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ferryline.registry.cli.edge import run_app
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.documents import utc_now
from ferryline.registry.errors import NotFoundError, RefusedError
from ferryline.registry.extras import Extra
from ferryline.registry.settings import load_settings
from ferryline.streams.pipeline import Pipeline, load_pipeline

if TYPE_CHECKING:
    from ferryline.flink_scoring.dead_letters.letters import StoredLetter
    from ferryline.flink_scoring.dead_letters.replaying import ReplayPlan
    from ferryline.flink_scoring.dead_letters.selection import Selection
    from ferryline.flink_scoring.dead_letters.verdicts import Report

INTERRUPTED = 130

app = typer.Typer(
    help="Look at the records that a scoring pipeline could not score, and send them back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Example: ferry-dlq summary digits.toml && ferry-dlq replay digits.toml --dry-run",
)

PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file (TOML).", metavar="PIPELINE.toml")]
Kafka = Annotated[str | None, typer.Option(help="Bootstrap servers, host:port; else FERRY_KAFKA.")]
Output = Annotated[OutputFormat, typer.Option("-o", "--output", help="For people or for scripts.")]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only letters of this reason; may be given again.")
]
Since = Annotated[
    str | None,
    typer.Option(help="Only letters written since: 2026-01-02T03:04 (UTC), or 90s, 2h, 7d ago."),
]


@app.command(epilog="Examples: ferry-dlq summary digits.toml · ferry-dlq summary digits.toml -o json")
def summary(
    pipeline_file: PipelineFile,
    *,
    since: Since = None,
    kafka: Kafka = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Count the letters by reason, and how many of them wait to be replayed."""
    pipeline, bootstrap = _opened(pipeline_file, kafka)
    from ferryline.flink_scoring.dead_letters.ledger import LedgerScope
    from ferryline.flink_scoring.dead_letters.reading import open_reader, topic_id
    from ferryline.flink_scoring.dead_letters.replaying import plan_replay, read_ledger
    from ferryline.flink_scoring.dead_letters.showing import show_summary
    from ferryline.flink_scoring.dead_letters.summary import summarise
    from ferryline.registry.cli.output import print_json

    selection = _selection(pipeline, None, since)
    plan = plan_replay(pipeline, selection, None)
    scope = LedgerScope(topic_id(bootstrap, plan.letters), plan.destination)
    with open_reader(bootstrap) as reader:
        replayed = read_ledger(reader, bootstrap, plan.ledger, scope)
    found = summarise(_selected(bootstrap, plan.letters, selection), replayed)
    if output is OutputFormat.JSON:
        print_json({"topic": plan.letters, "reasons": [item.document() for item in found]})
    else:
        show_summary(plan.letters, found)


@app.command(
    "list",
    epilog="Examples: ferry-dlq list digits.toml · "
    "ferry-dlq list digits.toml --reason wrong_length --since 2h -o json",
)
def list_letters(
    pipeline_file: PipelineFile,
    *,
    reason: Reasons = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="The most letters to list: the newest.")] = 20,
    kafka: Kafka = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the newest letters, the newest last."""
    pipeline, bootstrap = _opened(pipeline_file, kafka)
    from ferryline.flink_scoring.dead_letters.showing import letter_document, show_letters
    from ferryline.registry.cli.output import print_json

    selection = _selection(pipeline, reason, since)
    topic = pipeline.require_scoring().dead_letters
    found = _newest(_selected(bootstrap, topic, selection), limit)
    if output is OutputFormat.JSON:
        print_json([letter_document(item, item.letter, item.letter.value) for item in found if item.letter])
    else:
        show_letters(found)


@app.command(
    epilog="Examples: ferry-dlq show digits.toml 0:17 · ferry-dlq show digits.toml 0:17 --raw > record.json"
)
def show(
    pipeline_file: PipelineFile,
    place: Annotated[str, typer.Argument(help="As `list` shows it.", metavar="PARTITION:OFFSET")],
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the record's value alone, byte for byte.")
    ] = False,
    kafka: Kafka = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show one letter: where it came from, why it is here, its headers and its value."""
    pipeline, bootstrap = _opened(pipeline_file, kafka)
    from ferryline.flink_scoring.dead_letters.letters import store_letter, value_left_behind
    from ferryline.flink_scoring.dead_letters.reading import open_reader
    from ferryline.flink_scoring.dead_letters.replaying import original_value
    from ferryline.flink_scoring.dead_letters.selection import parse_place
    from ferryline.flink_scoring.dead_letters.showing import letter_document, show_letter
    from ferryline.registry.cli.output import print_json

    topic, (partition, offset) = pipeline.require_scoring().dead_letters, parse_place(place)
    with open_reader(bootstrap) as reader:
        message = reader.at(topic, partition, offset)
        if message is None:
            raise NotFoundError(
                f"{topic} has no record at {place}; `ferry-dlq list {pipeline_file}` shows some"
            )
        stored = store_letter(message)
        letter = stored.letter
        if letter is None:
            raise NotFoundError(f"the record at {place} of {topic} is {stored.fault}")
        value = original_value(reader, letter) if value_left_behind(letter) else letter.value
    if raw:
        if value is None:
            raise NotFoundError(
                f"the record of {place} has no value, or one that is gone from {letter.topic}"
            )
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
    elif output is OutputFormat.JSON:
        print_json(letter_document(stored, letter, value))
    else:
        show_letter(stored, letter, value)


@app.command(
    epilog="Examples: ferry-dlq replay digits.toml --dry-run · "
    "ferry-dlq replay digits.toml --reason inference_failed --since 2h · "
    "ferry-dlq replay digits.toml --to digits.repair --limit 100"
)
def replay(
    pipeline_file: PipelineFile,
    *,
    reason: Reasons = None,
    since: Since = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The most letters to send, the oldest first.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Send there, and not to the source topic.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and send nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Send what died after three replays, too.")] = False,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="The most letters of one transaction.")] = 500,
    kafka: Kafka = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Send letters back into the source topic: key, value and headers as they were, each exactly once.

    A replay that is cut off goes on where it stopped when it is run again. Exits with 5 if letters
    were refused because they keep failing.
    """
    pipeline, bootstrap = _opened(pipeline_file, kafka)
    from dataclasses import replace

    from ferryline.flink_scoring.dead_letters.replaying import plan_replay
    from ferryline.flink_scoring.dead_letters.showing import print_report, show_report

    plan = plan_replay(pipeline, _selection(pipeline, reason, since), to)
    plan = replace(plan, limit=limit, batch=batch, force=force, dry_run=dry_run)
    report = _replayed(plan, bootstrap)
    if output is OutputFormat.JSON:
        print_report(report, destination=plan.destination, dry_run=dry_run)
    else:
        show_report(report, destination=plan.destination, dry_run=dry_run)
    _judge(report, pipeline_file)


def _opened(pipeline_file: Path, kafka: str | None) -> tuple[Pipeline, str]:
    pipeline = load_pipeline(pipeline_file)
    pipeline.require_scoring()
    bootstrap = load_settings(kafka=kafka).kafka
    # Kafka's client takes a third of a second to import: --help and a wrong file need not wait for it
    from ferryline.streams.kafka import quiet_client_logs

    quiet_client_logs()
    return pipeline, bootstrap


def _selection(pipeline: Pipeline, reasons: list[str] | None, since: str | None) -> Selection:
    from ferryline.flink_scoring.dead_letters.selection import Selection, parse_since

    moment = parse_since(since, utc_now()) if since else None
    return Selection(pipeline.name, frozenset(reasons or ()), moment)


def _selected(bootstrap: str, topic: str, selection: Selection) -> Iterator[StoredLetter]:
    from ferryline.flink_scoring.dead_letters.reading import open_reader

    with open_reader(bootstrap) as reader, _bar("reading") as observe:
        spans = reader.spans(topic)
        done, total = 0, sum(map(len, spans.values()))
        for letters in reader.letters(spans):
            done += len(letters)
            observe(done, total)
            yield from filter(selection.takes, letters)


def _newest(letters: Iterator[StoredLetter], limit: int) -> list[StoredLetter]:
    """The last `limit` of each partition are enough to find the newest of all."""
    kept: dict[int, deque[StoredLetter]] = {}
    for stored in letters:
        kept.setdefault(stored.partition, deque(maxlen=limit)).append(stored)
    every = [stored for part in kept.values() for stored in part]
    return sorted(every, key=lambda item: (item.written_at, item.partition, item.offset))[-limit:]


def _replayed(plan: ReplayPlan, bootstrap: str) -> Report:
    from ferryline.flink_scoring.dead_letters.replaying import run_replay
    from ferryline.registry.cli.signals import stop_on_signals

    stop = stop_on_signals()
    with _bar("replaying") as observe:
        return run_replay(plan, bootstrap, observe=observe, stopping=stop.is_set)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _judge(report: Report, pipeline_file: Path) -> None:
    from ferryline.flink_scoring.dead_letters.verdicts import MOST_REPLAYS, Verdict

    if report.stopped:
        raise typer.Exit(INTERRUPTED)
    refused = report.of(Verdict.EXHAUSTED)
    if refused:
        raise RefusedError(
            "replays",
            f"{refused} letters died again after {MOST_REPLAYS} replays, and were left where they are",
            f"See why with `ferry-dlq list {pipeline_file}`, mend it, then replay with --force",
        )


def main() -> NoReturn:
    """The entry point of `ferry-dlq`."""
    run_app(app, "ferry-dlq", needs=(Extra.FLINK, "numpy", "kafka", "simdjson"))


if __name__ == "__main__":
    main()
