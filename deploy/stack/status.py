"""What each process of a stack is doing, found by asking it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ferryline.deploy.stack import process
from ferryline.deploy.stack.catalog import PARTS, PROCESSES_OF
from ferryline.deploy.stack.external import External
from ferryline.deploy.stack.state import StackState


class Condition(StrEnum):
    """What was found."""

    RUNNING = "running"
    EXTERNAL = "external"
    STOPPED = "stopped"
    DIED = "died"
    SILENT = "silent"
    """It runs here, or is named in the environment, but does not answer."""


@dataclass(frozen=True)
class PartStatus:
    """One row of `ferry-stack status`.

    Attributes:
        name: the process, or the part where it runs elsewhere.
        condition: what was found.
        address: where it is reached; empty if it does not run.
        pid: its process id; None if it runs elsewhere or not at all.
        memory_bytes: memory of the process and its children; 0 if it is not this stack's.
        log: its log file; empty if there is none.
    """

    name: str
    condition: Condition
    address: str = ""
    pid: int | None = None
    memory_bytes: int = 0
    log: str = ""

    @property
    def is_faulty(self) -> bool:
        """Whether it should answer and does not."""
        return self.condition in {Condition.DIED, Condition.SILENT}

    def as_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self)


def observe(
    state: StackState, external: External, probes: Mapping[str, Callable[[], bool]]
) -> list[PartStatus]:
    """Ask everything that should run.

    Args:
        state: what the stack started.
        external: what runs elsewhere.
        probes: how to ask each process.
    """
    rows = []
    for part in PARTS:
        address = external.address_of(part)
        if address:
            condition = Condition.EXTERNAL if external.answers(part) else Condition.SILENT
            rows.append(PartStatus(part, condition, address))
        else:
            rows += [_observe_process(name, state, probes[name]) for name in PROCESSES_OF[part]]
    return rows


def _observe_process(name: str, state: StackState, answers: Callable[[], bool]) -> PartStatus:
    record = state.processes.get(name)
    if record is None:
        return PartStatus(name, Condition.STOPPED)
    if not process.is_alive(record):
        return PartStatus(name, Condition.DIED, log=str(record.log))
    condition = Condition.RUNNING if answers() else Condition.SILENT
    memory = process.memory_of(record)
    return PartStatus(name, condition, record.address, record.pid, memory, str(record.log))
