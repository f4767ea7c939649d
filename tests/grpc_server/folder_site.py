"""A registry in a folder, and what a server on it is told."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from ferryline.model_runtime.facts import read_facts
from ferryline.registry import Registry


class Site:
    """A folder registry, and the flags of the servers that a test starts on it.

    Attributes:
        folder: holds the registry, the servers' cache and their logs.
        root: of the registry.
        store: the registry's URL.
        registry: the registry.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "registry"
        self.store = self.root.as_uri()
        self._away = folder / "away"
        self.registry = Registry.open(self.store, actor="tester")

    def publish(self, data: bytes, model: str = "m", *, facts_of: bytes | None = None) -> int:
        """Publish a file and promote it in production; returns its version."""
        version = self.registry.publish(model, data, read_facts(facts_of or data)).version
        self.registry.promote(model, version)
        return version

    def take_away(self) -> None:
        """Put a file where the registry was: every access fails, as on a lost mount."""
        self.root.rename(self._away)
        while True:
            try:
                self.root.touch(exist_ok=False)
            except FileExistsError:  # a heartbeat made the folder anew in between
                self.root.rename(self.folder / f"made-anew-{uuid.uuid4().hex}")
            else:
                return

    def bring_back(self) -> None:
        """Undo that."""
        self.root.unlink()
        self._away.rename(self.root)

    def flags(self, models: Sequence[str], more: Sequence[str]) -> list[str]:
        """The flags of a server on free ports; of those given twice, the later ones hold."""
        flags = ["--store", self.store, "--cache", str(self.folder / "cache")]
        flags += ["--port", "0", "--http-port", "0", "--metrics-port", "0"]
        flags += ["--poll-seconds", "0.1", "--log-format", "json"]
        return [*flags, *(part for model in models for part in ("--model", model)), *more]
