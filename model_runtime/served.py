"""A model that serves, and everything a reply must say about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from model_runtime.session import OnnxSession
from registry.documents import ChannelEntry, Manifest


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version under one generation of a channel. Whoever holds it keeps its session alive.

    Args:
        manifest: the version.
        entry: the generation of the channel that made it serve.
        session: the loaded file.
        since: when it began to serve here.
    """

    manifest: Manifest
    entry: ChannelEntry
    session: OnnxSession
    since: datetime

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.model

    @property
    def channel(self) -> str:
        """The channel it serves."""
        return self.entry.channel

    @property
    def version(self) -> int:
        """The version of the model."""
        return self.manifest.version

    @property
    def generation(self) -> int:
        """The generation of the channel."""
        return self.entry.generation

    @property
    def digest(self) -> str:
        """The digest of the model file."""
        return self.manifest.blob.digest
