"""What a part hands over to be started, and waiting until all that was started answers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ferryline.deploy.stack.errors import PartFailedError
from ferryline.deploy.stack.process import is_alive, tail
from ferryline.deploy.stack.state import ProcessRecord

_POLL_S = 0.1
_TAIL_LINES = 15


@dataclass(frozen=True)
class Launch:
    """One server process to start.

    Attributes:
        name: its name in state.json.
        command: the program and its arguments.
        environ: its whole environment.
        folder: its working directory.
        address: where it will be reached.
        ready: asks the server whether it can do its work; quick, and False while it cannot be reached.
        deadline_s: seconds it may take.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    folder: Path
    address: str
    ready: Callable[[], bool]
    deadline_s: float


@dataclass(frozen=True)
class Awaited:
    """A running process that is not known to answer yet; the fields are those of its launch."""

    name: str
    ready: Callable[[], bool]
    deadline_s: float
    record: ProcessRecord


def wait_until_ready(awaited: Sequence[Awaited], progress: Callable[[str], None]) -> None:
    """Wait until each server answers.

    Raises:
        PartFailedError: one of them ended, or missed its deadline.
    """
    begin = time.monotonic()
    waiting = list(awaited)
    while waiting:
        for each in tuple(waiting):
            waited_s = time.monotonic() - begin
            if each.ready():
                waiting.remove(each)
                progress(f"{each.name} is ready after {waited_s:.1f} s")
            else:
                _check_hope(each, waited_s)
        if waiting:
            time.sleep(_POLL_S)


def _check_hope(awaited: Awaited, waited_s: float) -> None:
    if not is_alive(awaited.record):
        reason = "ended while starting"
    elif waited_s > awaited.deadline_s:
        reason = f"was not ready after {awaited.deadline_s:.0f} s"
    else:
        return
    log = awaited.record.log
    raise PartFailedError(awaited.name, reason, log=log, tail=tail(log, _TAIL_LINES))
