"""The model catalogue: versions, channels and heartbeats in an object store, and the `ferry` command."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ferryline.registry.catalogue import Registry
    from ferryline.registry.documents import ChannelEntry, Manifest, ModelFacts, TrainingRecord
    from ferryline.registry.names import ModelReference

__all__ = ["ChannelEntry", "Manifest", "ModelFacts", "ModelReference", "Registry", "TrainingRecord"]

_HOMES = {
    "ChannelEntry": "ferryline.registry.documents",
    "Manifest": "ferryline.registry.documents",
    "ModelFacts": "ferryline.registry.documents",
    "ModelReference": "ferryline.registry.names",
    "Registry": "ferryline.registry.catalogue",
    "TrainingRecord": "ferryline.registry.documents",
}


def __getattr__(name: str) -> Any:
    # on first use: `ferry --help` imports this package too, and should not wait for pydantic
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
