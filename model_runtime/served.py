"""A model that serves, and everything a reply must say about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ferryline.registry.canary import CanarySplit
from ferryline.registry.documents import ChannelEntry, Manifest

if TYPE_CHECKING:
    from ferryline.model_runtime.session import OnnxSession


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version under one generation of a channel. Whoever holds it keeps its session alive.

    Args:
        manifest: the version.
        entry: the generation of the channel that made it serve.
        session: the loaded file.
        since: when it began to serve here.
        canary: the version that serves beside it, where the generation has one.
    """

    manifest: Manifest
    entry: ChannelEntry
    session: OnnxSession
    since: datetime
    canary: Canary | None = None

    def chosen_for(self, key: bytes) -> ServedModel:
        """The version for the record or request with `key`: the canary for its share, else this one."""
        canary = self.canary
        return canary.model if canary is not None and canary.split.takes(key) else self

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


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that serves a share of a channel, and the rule that says which keys it gets."""

    model: ServedModel
    split: CanarySplit
