"""The model catalogue: versions, channels and heartbeats in an object store, and the `ferry` command."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.catalogue import Registry
    from registry.documents import ChannelEntry, Manifest, ModelFacts, TrainingRecord
    from registry.names import ModelReference

__all__ = ["ChannelEntry", "Manifest", "ModelFacts", "ModelReference", "Registry", "TrainingRecord"]

_HOMES = {
    "ChannelEntry": "registry.documents",
    "Manifest": "registry.documents",
    "ModelFacts": "registry.documents",
    "ModelReference": "registry.names",
    "Registry": "registry.catalogue",
    "TrainingRecord": "registry.documents",
}


def __getattr__(name: str) -> Any:
    # on first use: `ferry --help` imports this package too, and should not wait for pydantic
    if name not in _HOMES:
        raise AttributeError(f"module 'registry' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
