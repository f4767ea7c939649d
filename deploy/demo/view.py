"""How a snapshot looks in a terminal, and in one line where there is none."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ferryline.deploy.demo.snapshot import Served, Snapshot

VERSIONS_SHOWN = 6


def render(shot: Snapshot, addresses: Mapping[str, str], doing: str) -> RenderableType:
    """The live view."""
    parts = [_flow(shot), _consumers(shot), _versions(shot), _addresses(addresses)]
    return Panel(Group(*parts), title="Ferryline", subtitle=Text(doing), border_style="cyan")


def one_line(shot: Snapshot, doing: str) -> str:
    """The same in one line, for a log."""
    return (
        f"{shot.seconds:5.0f} s  {doing}: in {shot.records_in} ({shot.records_per_second:.0f}/s), "
        f"scored {shot.scored}, dead letters {shot.dead}, accuracy {_share(shot.accuracy)}, "
        f"head {_head(shot)}, flink {_served(shot.flink)}, grpc {_served(shot.server)}, "
        f"requests {shot.requests} ({shot.failed_requests} failed)"
    )


def _flow(shot: Snapshot) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("records in", f"{shot.records_in:,}", f"{shot.records_per_second:,.0f}/s")
    table.add_row("scored", f"{shot.scored:,}", f"{shot.dead:,} dead letters")
    training = f"version {shot.training_version}" if shot.training_version else "not yet"
    table.add_row("in training", training, f"prequential accuracy {_share(shot.accuracy)}")
    failed = Text(f"{shot.failed_requests} failed", style="red" if shot.failed_requests else "green")
    table.add_row("requests", f"{shot.requests:,}", failed)
    return table


def _consumers(shot: Snapshot) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("", "version", "generation", "promote to first answer"):
        table.add_column(column)
    head = shot.head
    held = " (held)" if head and head.held else ""
    table.add_row(
        "channel", str(head.version) if head else "-", (str(head.generation) if head else "-") + held
    )
    for name, served in (("Flink", shot.flink), ("gRPC", shot.server)):
        table.add_row(
            name,
            str(served.version or "-"),
            str(served.generation or "-"),
            f"{served.last_swap_seconds:.2f} s" if served.last_swap_seconds is not None else "-",
        )
    return table


def _versions(shot: Snapshot) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("deployed version", "records scored", "accuracy"):
        table.add_column(column)
    for number, (scored, accuracy) in list(shot.accuracies.items())[-VERSIONS_SHOWN:]:
        table.add_row(str(number), f"{scored:,}", _share(accuracy))
    return table


def _addresses(addresses: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, address in addresses.items():
        table.add_row(Text(name, style="dim"), Text(address, style="dim"))
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _head(shot: Snapshot) -> str:
    return f"v{shot.head.version}/g{shot.head.generation}" if shot.head else "-"


def _served(served: Served) -> str:
    return f"v{served.version}/g{served.generation}" if served.generation else "-"
