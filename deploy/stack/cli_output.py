"""What `ferry-stack` shows: progress on standard error, results on standard output."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ferryline.deploy.stack.addresses import Addresses
from ferryline.deploy.stack.artifacts import Progress
from ferryline.deploy.stack.errors import PartFailedError
from ferryline.deploy.stack.status import Condition, PartStatus

console = Console(stderr=True, highlight=False)

_COLOURS = {
    Condition.RUNNING: "green",
    Condition.EXTERNAL: "cyan",
    Condition.STOPPED: "dim",
    Condition.DIED: "red",
    Condition.SILENT: "red",
}
_MIB = 1024 * 1024
_FOLLOW_POLL_S = 0.3


@contextmanager
def narrated(beginning: str) -> Iterator[Progress]:
    """Show progress: a line per step, and on a terminal a spinner with the last one."""
    with console.status(beginning) as spinner:

        def tell(message: str) -> None:
            console.print(f"[dim]·[/dim] {escape(message)}")
            spinner.update(escape(message))

        yield tell


def show_addresses(addresses: Addresses) -> None:
    """The table of addresses and the lines that tell a shell about them."""
    table = Table("part", "address", box=None, header_style="dim")
    table.add_row("Kafka", addresses.kafka or "-")
    table.add_row("store", addresses.store or "-")
    table.add_row("Flink", addresses.flink or "-")
    table.add_row("metrics", addresses.flink_metrics or "-")
    console.print(table)
    console.print(f"\n{escape(addresses.exports())}", soft_wrap=True, end="")
    console.print('\n[dim]in a shell:[/dim] eval "$(ferry-stack env)"')


def show_status(rows: Sequence[PartStatus]) -> None:
    """The table of `status`, on standard output."""
    table = Table("part", "state", "address", "pid", "memory", box=None, header_style="dim")
    for row in rows:
        memory = f"{row.memory_bytes / _MIB:.0f} MiB" if row.memory_bytes else ""
        state = f"[{_COLOURS[row.condition]}]{row.condition.value}[/]"
        table.add_row(row.name, state, escape(row.address), str(row.pid or ""), memory)
    results = Console(highlight=False)
    results.print(table)
    total = sum(row.memory_bytes for row in rows)
    if total:
        results.print(f"[dim]memory of all: {total / _MIB:.0f} MiB[/dim]")


def print_status(home: Path, rows: Sequence[PartStatus]) -> None:
    """The JSON of `status`, on standard output."""
    document = {"home": str(home), "parts": [row.as_json() for row in rows]}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def show_last_words(error: PartFailedError) -> None:
    """The end of the log of a server that did not start."""
    if error.tail:
        console.print(f"[dim]last lines of {escape(str(error.log))}:[/dim]", soft_wrap=True)
        console.print(escape(error.tail), soft_wrap=True)


def follow(files: Sequence[Path]) -> None:
    """Print what is appended to files until interrupted; one that is begun anew is read from its start."""
    positions = {file: (_identity(file), file.stat().st_size if file.exists() else 0) for file in files}
    while True:
        for file, (identity, position) in positions.items():
            current = _identity(file)
            start = position if current == identity else 0
            positions[file] = (current, _print_from(file, start))
        sys.stdout.flush()
        time.sleep(_FOLLOW_POLL_S)


def _identity(file: Path) -> int:
    return file.stat().st_ino if file.exists() else 0


def _print_from(file: Path, position: int) -> int:
    if not file.exists():
        return 0
    with file.open("rb") as stream:
        stream.seek(position)
        sys.stdout.write(stream.read().decode(errors="replace"))
        return stream.tell()
