"""The load gate: judges a model file where it can do no harm, before it is published and before it serves."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ferryline.model_runtime.gate.checks import static_checks
    from ferryline.model_runtime.gate.errors import GateUnavailableError
    from ferryline.model_runtime.gate.gate import Gate
    from ferryline.model_runtime.gate.keeper import GateKeeper
    from ferryline.model_runtime.gate.limits import GateLimits
    from ferryline.model_runtime.gate.settings import GateSettings, load_gate_limits

__all__ = [
    "Gate",
    "GateKeeper",
    "GateLimits",
    "GateSettings",
    "GateUnavailableError",
    "load_gate_limits",
    "static_checks",
]

_HOMES = {
    "Gate": "gate",
    "GateKeeper": "keeper",
    "GateLimits": "limits",
    "GateSettings": "settings",
    "GateUnavailableError": "errors",
    "load_gate_limits": "settings",
    "static_checks": "checks",
}


def __getattr__(name: str) -> Any:
    # on first use: programs need not hold what only the keeper works with, nor the keeper theirs
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
