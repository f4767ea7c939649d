"""The model catalogue: versions, channels and heartbeats in an object store, and the `ferry` command."""

from registry.catalogue import Registry
from registry.documents import ChannelEntry, Manifest, ModelFacts, TrainingRecord
from registry.names import ModelReference

__all__ = ["ChannelEntry", "Manifest", "ModelFacts", "ModelReference", "Registry", "TrainingRecord"]
