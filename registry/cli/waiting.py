"""`--wait`: until every live consumer serves a generation, with a line that says how far it is."""

from __future__ import annotations

import sys

from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.output import printable
from ferryline.registry.convergence import Convergence, wait_until_served
from ferryline.registry.documents import ChannelEntry

_NAMED = 3
_ERASE = "\r\x1b[K"


def wait_for_consumers(registry: Registry, entry: ChannelEntry, seconds: float) -> Convergence:
    """Wait, and show on a terminal who is still to come.

    Raises:
        WaitTimeoutError: as `wait_until_served`.
    """
    if not sys.stderr.isatty():
        return wait_until_served(registry, entry, seconds=seconds)

    def show(standing: Convergence) -> None:
        sys.stderr.write(f"{_ERASE}{printable(progress(standing))}")
        sys.stderr.flush()

    try:
        return wait_until_served(registry, entry, seconds=seconds, on_look=show)
    finally:
        sys.stderr.write(_ERASE)


def progress(standing: Convergence) -> str:
    """How far the consumers are, in a line."""
    late = [service.heartbeat.consumer for service in standing.late]
    more = f" and {len(late) - _NAMED} more" if len(late) > _NAMED else ""
    return (
        f"{len(standing.serving)} of {len(standing.serving) + len(late)} consumers serve it; "
        f"waiting for {', '.join(late[:_NAMED])}{more}"
    )
