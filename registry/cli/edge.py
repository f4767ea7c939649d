"""The process edge of every command: domain errors become one line and the agreed exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import NoReturn

import typer

from ferryline.registry.errors import (
    ChannelHeldError,
    ConflictError,
    FerryError,
    NotFoundError,
    RefusedError,
    StoreError,
    UnreachableError,
    UsageError,
    WaitTimeoutError,
)
from ferryline.registry.extras import Extra, require_extra
from ferryline.registry.systems import require_linux

Needs = tuple[Extra, *tuple[str, ...]] | None
"""An extra, and those of its modules that are needed; all of them where none is named."""


class ExitCode(IntEnum):
    """What a command's exit status means, for scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    REFUSED = 5
    UNREACHABLE = 6
    WAIT_TIMEOUT = 7
    HELD = 8


_CODES: dict[type[FerryError], ExitCode] = {
    UsageError: ExitCode.USAGE,
    NotFoundError: ExitCode.NOT_FOUND,
    ConflictError: ExitCode.CONFLICT,
    RefusedError: ExitCode.REFUSED,
    StoreError: ExitCode.UNREACHABLE,
    UnreachableError: ExitCode.UNREACHABLE,
    WaitTimeoutError: ExitCode.WAIT_TIMEOUT,
    ChannelHeldError: ExitCode.HELD,
}


def exit_code(error: FerryError) -> ExitCode:
    """The exit status that tells `error` to a script."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return ExitCode.FAILED


def run_app(
    app: typer.Typer | Callable[[], typer.Typer], program: str, *, needs: Needs = None, linux: bool = False
) -> NoReturn:
    """Run a typer application as a process: it ends here, whatever happens.

    Typer itself answers wrong usage (2), Ctrl-C (130) and a reader of our output that went away.

    Args:
        app: the application, or what imports it.
        program: its name.
        needs: the extra that it needs for anything it does, and the modules of it if not all.
        linux: whether it runs on Linux only.
    """
    _open_closed_streams()
    try:
        if linux:
            require_linux(program)
        if needs is not None:
            require_extra(needs[0], program, needs[1:])
        made = app if isinstance(app, typer.Typer) else app()
        made(prog_name=program)
    except FerryError as error:
        _complain(str(error))
        sys.exit(exit_code(error))
    except OSError as error:  # stores translate theirs; most often this is a full disk under the output
        _complain(str(error))
        _drop_output()
        sys.exit(ExitCode.FAILED)
    sys.exit(ExitCode.DONE)


def _open_closed_streams() -> None:
    # a stream that the caller closed is one that nobody reads; left closed, a socket could get its number
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _complain(text: str) -> None:
    line = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    sys.stderr.write(f"error: {line}\n")


def _drop_output() -> None:
    # what is still buffered would be tried again, and complained about, when the interpreter ends
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
