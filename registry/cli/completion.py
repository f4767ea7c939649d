"""What the shell may complete: the registry's own models, versions and channels.

It must never be in the way: whatever fails is silent, and what takes too long is left.
"""

from __future__ import annotations

import contextlib
import threading

from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.opening import open_registry
from ferryline.registry.names import is_name

PATIENCE = 1.0
"""Seconds; nobody who has pressed a key waits for longer."""

NEWEST = 20
"""So many versions are offered."""


def complete(incomplete: str, *, versions: bool) -> list[str]:
    """What `incomplete` may become: `MODEL`, and as soon as a model is written its versions and channels."""
    found: list[str] = []

    def look() -> None:
        with contextlib.suppress(Exception):  # a message would be written into the line that is being typed
            found.extend(_candidates(open_registry(None), incomplete, versions=versions))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(PATIENCE)
    return [text for text in found if text.startswith(incomplete)]


def _candidates(registry: Registry, incomplete: str, *, versions: bool) -> list[str]:
    model, at, _ = incomplete.partition("@")
    if at:
        newest = registry.versions(model).newest() if versions and is_name(model) else 0
        return [f"{model}@{number}" for number in range(newest, max(0, newest - NEWEST), -1)]
    model, colon, _ = incomplete.partition(":")
    if colon:
        return [f"{model}:{channel}" for channel in registry.channels(model)]
    return registry.models()
