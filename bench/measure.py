"""What all benchmarks share: alternating rounds, medians, and one table.

The machine is noisy and its speed drifts, so ours and its limit take turns in one run, and what is quoted is
the median of each and the median of the ratios of neighbouring rounds.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the table.

    Attributes:
        benchmark: what was done.
        unit: of the two figures.
        ours: the median of our rounds.
        limit: the median of the rounds it is held against.
        limit_name: what that is.
        ratio: ours / limit, the median over neighbouring rounds.
        spread: the lowest and highest of those ratios.
        rounds: how many there were.
    """

    benchmark: str
    unit: str
    ours: float
    limit: float
    limit_name: str
    ratio: float
    spread: tuple[float, float]
    rounds: int


def compare(benchmark: str, unit: str, limit_name: str, pairs: Sequence[tuple[float, float]]) -> Comparison:
    """The comparison of rounds of (ours, limit), which took turns."""
    ratios = [ours / limit for ours, limit in pairs]
    return Comparison(
        benchmark=benchmark,
        unit=unit,
        ours=statistics.median(ours for ours, _ in pairs),
        limit=statistics.median(limit for _, limit in pairs),
        limit_name=limit_name,
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        rounds=len(pairs),
    )


def alternate(
    ours: Callable[[], float], limit: Callable[[], float], *, rounds: int
) -> list[tuple[float, float]]:
    """Measure both in turn, after one round that does not count; who goes first changes each time."""
    ours(), limit()
    pairs = []
    for number in range(rounds):
        if number % 2:
            held_against = limit()
            pairs.append((ours(), held_against))
        else:
            pairs.append((ours(), limit()))
    return pairs


def parse_arguments(description: str | None) -> argparse.Namespace:
    """`--quick` and `--json FILE`, which every benchmark takes; from here on SIGTERM ends in order.

    A benchmark that is cut off must not leave its servers running.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparisons there as well")
    return parser.parse_args()


def report(comparisons: Sequence[Comparison], arguments: argparse.Namespace) -> None:
    """Print the table, and write the JSON where it was asked for."""
    print_table(comparisons)
    if arguments.json is not None:
        arguments.json.write_bytes(orjson.dumps([asdict(item) for item in comparisons]))


def print_table(comparisons: Sequence[Comparison]) -> None:
    """The table, on standard output."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("benchmark", "unit", "ferryline", "limit", "held against", "ratio", "min-max", "rounds"):
        table.add_column(column)
    for item in comparisons:
        table.add_row(
            item.benchmark,
            item.unit,
            _figure(item.ours),
            _figure(item.limit),
            item.limit_name,
            f"{item.ratio:.2f}",
            f"{item.spread[0]:.2f}-{item.spread[1]:.2f}",
            str(item.rounds),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - three digits tell enough
