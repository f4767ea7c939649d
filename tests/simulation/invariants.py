"""What must hold in every history, whatever goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Invariant(StrEnum):
    """What must hold; the values are what tests and scripts call them."""

    ACKNOWLEDGED = "an acknowledged change is in the history"
    WAIT_TRUE = "--wait that said yes was true"
    WAIT_ENDS = "--wait does not wait for the dead"
    ROLLBACK_SEEN = "nobody goes on serving what was rolled back"
    ROLLBACK_KEPT = "nobody begins to serve what was rolled back"
    NO_FINAL_REFUSAL = "a transient fault refuses nothing for good"
    CONVERGES = "once faults stop everyone serves the head"
    LINEAR = "a consumer reads no more than it is behind"
    IN_USE = "nothing in use is collected"
    COLLECTED_TOLD = "what was collected says so"
    WAY_BACK = "the way back leads to nothing that was taken back"
    PERMISSION = "an allowed contract change stays allowed"
    CONTRACT_GATE = "no contract changes unallowed"
    LEFT = "a version that was left comes back by choice alone"
    HEARTBEAT = "a heartbeat is one consumer's"


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that does not hold, when, and how."""

    invariant: Invariant
    at: float
    what: str

    def __str__(self) -> str:
        return f"{self.at:8.1f} s  {self.invariant}: {self.what}"
