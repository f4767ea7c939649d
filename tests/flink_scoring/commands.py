"""Commands of this package run in this process, as a user types them."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import structlog


@dataclass(frozen=True)
class Ended:
    """What a command printed where, and its exit code."""

    code: int
    out: bytes
    err: str

    @property
    def error(self) -> str:
        """The one line that tells what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


def run_command(main: Callable[[], object], program: str, *arguments: str) -> Ended:
    """Run a program's entry point to its end; signals and logging are afterwards as they were."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logging = structlog.get_config()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [program, *arguments])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as ended:
                main()
    finally:
        structlog.configure(**logging)
        for number, handler in signals.items():
            signal.signal(number, handler)
    printed, told = (stream.buffer.getvalue() for stream in (out, err))  # type: ignore[attr-defined]
    return Ended(int(str(ended.value.code or 0)), printed, told.decode())
