"""A bar on standard error for a transfer that takes a while; none where nobody watches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ferryline.registry import transfer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def transfer_bar(what: str) -> Iterator[None]:
    """Show how far the large transfers are that are made meanwhile; `what` is a word such as `uploading`."""
    if not sys.stderr.isatty():
        yield
        return
    bar = _Bar(what)
    try:
        with transfer.observed(bar.show):
            yield
    finally:
        bar.stop()


class _Bar:
    """A bar that is drawn when the first news comes, so that a small file costs no table library."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def show(self, moved: int, size: int) -> None:
        """Tell that `moved` bytes of `size` are over."""
        if self._progress is None:
            self._start(size)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=moved, total=size)

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()

    def _start(self, size: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(f"{self._what} ", *columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(self._what, total=size)
        self._progress.start()
