"""Opens the registry that the settings name, with its keys: the one way for every program."""

from __future__ import annotations

from registry.catalogue import Registry
from registry.settings import Settings
from registry.signing.setup import seal_of
from registry.stores import open_store


def open_registry(settings: Settings, *, actor: str | None = None) -> Registry:
    """The registry in `settings.store`; it signs and verifies as the settings say, by default neither.

    Raises:
        UsageError: the store's URL is of no known form, or a key file cannot be used.
    """
    return Registry(open_store(settings.store), actor=actor, seal=seal_of(settings))
