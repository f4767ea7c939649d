"""Where the demo is shown, on standard error: a live panel in a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from ferryline.deploy.demo.snapshot import Snapshot
from ferryline.deploy.demo.view import one_line, render

LINE_SECONDS = 5.0


class Display:
    """Shows snapshots and remarks."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._last_line = 0.0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Within it, snapshots are drawn in place where there is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def say(self, text: str) -> None:
        """A remark."""
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {text}", soft_wrap=True)

    def show(self, shot: Snapshot, addresses: Mapping[str, str], doing: str) -> None:
        """A snapshot."""
        if self._live is not None:
            self._live.update(render(shot, addresses, doing), refresh=True)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(one_line(shot, doing), soft_wrap=True)
