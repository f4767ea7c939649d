"""Heartbeats: who serves what right now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from registry import keys
from registry.documents import Heartbeat
from registry.names import require_name
from registry.stores.base import ObjectMissingError, Store

STALE_AFTER_INTERVALS = 3


class Consumers:
    """The heartbeats in `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say what a consumer serves."""
        self._store.put(keys.consumer(require_name(heartbeat.consumer, what="consumer")), heartbeat.encode())

    def leave(self, consumer: str) -> None:
        """Take a consumer's heartbeat away, on an orderly stop."""
        self._store.delete(keys.consumer(consumer))

    def all(self) -> Iterator[Heartbeat]:
        """Every heartbeat there is, stale ones too, by consumer."""
        for listed in self._store.list(keys.CONSUMERS):
            try:
                stored = self._store.get(listed.key)
            except ObjectMissingError:  # it left since it was listed
                continue
            yield Heartbeat.decode(stored.data, key=listed.key)


def is_stale(heartbeat: Heartbeat, now: datetime) -> bool:
    """Whether a consumer has been silent for so long that it must be presumed gone."""
    silence = timedelta(seconds=heartbeat.interval_seconds * STALE_AFTER_INTERVALS)
    return now - heartbeat.at > silence
