"""What can go wrong with the gate itself, which says nothing about the model.

FerryError
├── RefusedError             a model was judged, and must not be served (ferryline.registry.errors)
└── GateUnavailableError     no judgement could be made; it is worth trying again
    └── KeeperLostError          the process that judges ended before it had answered
"""

from __future__ import annotations

from ferryline.registry.errors import FerryError

__all__ = ["GateUnavailableError", "KeeperLostError"]


class GateUnavailableError(FerryError):
    """The gate could not judge the model: its helper process does not start or does not answer."""


class KeeperLostError(GateUnavailableError):
    """The helper process ended before it had answered."""
