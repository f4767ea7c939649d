"""The registry that a command works on."""

from __future__ import annotations

from ferryline.registry import opening
from ferryline.registry.catalogue import Registry
from ferryline.registry.settings import load_settings


def open_registry(store: str | None) -> Registry:
    """The registry of the settings in force; `store` is the flag, None where it was not given.

    Raises:
        UsageError: the settings are not of the form they must have.
    """
    return opening.open_registry(load_settings(store=store))
