"""Opens the registry that the settings name, with its keys: the one way for every program."""

from __future__ import annotations

from ferryline.registry.catalogue import Registry
from ferryline.registry.guarded import GuardedStore
from ferryline.registry.settings import Settings
from ferryline.registry.signing.setup import seal_of
from ferryline.registry.stores import open_store


def open_registry(settings: Settings, *, actor: str | None = None) -> Registry:
    """The registry in `settings.store`; it signs and verifies as the settings say, by default neither.

    Before the first write to a store from this machine, a short probe proves that it keeps its promises.

    Raises:
        UsageError: the store's URL is of no known form, or a key file cannot be used.
    """
    # the state folder remembers which stores were proved to keep their promises
    store = GuardedStore(open_store(settings.store), settings.state)
    return Registry(store, actor=actor, seal=seal_of(settings))
