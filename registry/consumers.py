"""Heartbeats: who serves what right now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from ferryline.registry import keys
from ferryline.registry.documents import Heartbeat
from ferryline.registry.errors import UntrustedAnswerError
from ferryline.registry.names import require_name
from ferryline.registry.stores.base import Listed, ObjectMissingError, Store

STALE_AFTER_INTERVALS = 3
_TICK = 5.0  # seconds; a store may tell times by the second, and another rewrite within one does not show


class Consumers:
    """The heartbeats in `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[datetime, Heartbeat]] = {}
        """By key, what is read again only once it is rewritten: consumers that crashed leave heartbeats."""

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say what a consumer serves."""
        self._store.put(keys.consumer(require_name(heartbeat.consumer, what="consumer")), heartbeat.encode())

    def leave(self, consumer: str) -> None:
        """Take a consumer's heartbeat away, on an orderly stop."""
        self._store.delete(keys.consumer(consumer))

    def all(self, on_unreadable: Callable[[str], None] | None = None) -> Iterator[Heartbeat]:
        """Every heartbeat that can be read, stale ones too, by consumer.

        `at` is the store's time, whatever the consumer's clock says: by a slow one it would seem gone, and by
        a fast one it would seem live long after it died. Compare it with `Store.now`.

        Args:
            on_unreadable: told what is wrong with each heartbeat that cannot be read; one bad object must not
                hide all the others.
        """
        known, self._known = self._known, {}
        for listed in self._store.list(keys.CONSUMERS):
            try:
                heartbeat = self._read(listed, known.get(listed.key))
            except ObjectMissingError:  # it left since it was listed
                continue
            except UntrustedAnswerError as error:
                if on_unreadable is not None:
                    on_unreadable(str(error))
                continue
            if listed.key != keys.consumer(heartbeat.consumer):  # one's credentials are for one's own key
                if on_unreadable is not None:
                    on_unreadable(f"{listed.key} speaks for {heartbeat.consumer}, which is another consumer")
                continue
            yield heartbeat.model_copy(update={"at": listed.modified_at})

    def _read(self, listed: Listed, known: tuple[datetime, Heartbeat] | None) -> Heartbeat:
        if known is not None and known[0] == listed.modified_at:
            self._known[listed.key] = known
            return known[1]
        heartbeat = Heartbeat.decode(self._store.get(listed.key).data, key=listed.key)
        if (self._store.now() - listed.modified_at).total_seconds() > _TICK:
            self._known[listed.key] = (listed.modified_at, heartbeat)
        return heartbeat


def is_stale(heartbeat: Heartbeat, now: datetime) -> bool:
    """Whether a consumer has been silent for so long that it must be presumed gone; `now` is the store's."""
    return (now - heartbeat.at).total_seconds() > heartbeat.interval_seconds * STALE_AFTER_INTERVALS
