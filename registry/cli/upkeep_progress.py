"""Bars on standard error for garbage collection and `verify`; none where nobody watches a terminal."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class _Bars:
    """Bars by what they show, each drawn with its first news; news may come from any thread."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[told]}"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _show(self, what: str, told: str, done: int, total: int | None) -> None:
        if self._progress is None:
            return
        with self._lock:
            if what not in self._tasks:
                self._tasks[what] = self._progress.add_task(what, total=total, told=told)
            self._progress.update(self._tasks[what], completed=done, total=total, told=told)

    def _show_bytes(self, what: str, done: int, total: int) -> None:
        from ferryline.registry.cli.output import size_of

        self._show(what, f"{size_of(done)} of {size_of(total)}", done, total)


class GarbageProgress(_Bars):
    """How far a run of garbage collection has come."""

    def __init__(self) -> None:
        super().__init__()
        self._read = 0

    def reading(self) -> None:
        """A document was read."""
        self._read += 1
        self._show("reading", f"{self._read} documents", self._read, None)

    def deleting(self, done: int, total: int) -> None:
        """So many bytes of so many were freed."""
        self._show_bytes("deleting", done, total)


class WalkProgress(_Bars):
    """How far a walk has come."""

    def documents(self, done: int, total: int) -> None:
        """So many of so many documents were read."""
        self._show("documents", f"{done} of {total}", done, total)

    def files(self, done: int, total: int) -> None:
        """So many of so many bytes of files were read."""
        self._show_bytes("files", done, total)
