"""What can go wrong with the gate itself, which says nothing about the model.

FerryError
├── RefusedError             a model was judged, and must not be served (ferryline.registry.errors)
└── GateUnavailableError     no judgement could be made; it is worth trying again
    ├── ChildLostError           the machine ended a judgement, or kept it from being made
    └── KeeperLostError          the process that judges ended before it had answered
"""

from __future__ import annotations

from ferryline.registry.errors import FerryError

__all__ = ["ChildLostError", "GateUnavailableError", "KeeperLostError", "not_judged"]


class GateUnavailableError(FerryError):
    """The gate could not judge the model: its helper process does not start or does not answer."""


class ChildLostError(GateUnavailableError):
    """The child did not end by anything that the model must have done: the next try may pass.

    Args:
        reason: what happened to it.
        gate: the gate that refuses a model whose children end like this each time.
    """

    def __init__(self, reason: str, gate: str) -> None:
        super().__init__(not_judged(reason))
        self.reason = reason
        self.gate = gate


class KeeperLostError(GateUnavailableError):
    """The helper process ended before it had answered."""


def not_judged(reason: str) -> str:
    """Returns what to say of a candidate that no verdict was reached about."""
    return f"the load gate could not judge the model: {reason}; another try may pass"
