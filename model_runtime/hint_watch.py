"""Wakes the followers of many models by one conditional read of `hint.json`.

A hint is a wake-up and nothing else: each follower reads its channel itself, when it is woken and every
`FULL_READ_INTERVAL` seconds besides, so a hint that is lost or wrong costs time and never correctness.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

import structlog

from ferryline.model_runtime.follower import Follower
from ferryline.model_runtime.supervised import SupervisedThread
from ferryline.registry.errors import CorruptDocumentError, FerryError
from ferryline.registry.hints import Hint
from ferryline.registry.keys import HINT
from ferryline.registry.stores.base import ObjectMissingError, Store

FULL_READ_INTERVAL = 30.0
"""Seconds between two looks at a channel that no hint tells of; the `poll_interval` of watched followers."""

log = structlog.get_logger(__name__)


class HintWatch:
    """Looks at the hint every `interval` seconds, on a thread of its own.

    Args:
        store: where the registry lies.
        followers: whom to wake.
        interval: seconds between two looks; each is up to a tenth shorter, so that a fleet spreads out.
        heard: told each new hint, on this object's thread.
    """

    def __init__(
        self,
        store: Store,
        followers: Sequence[Follower],
        *,
        interval: float,
        heard: Callable[[Hint], object] | None = None,
    ) -> None:
        self._store = store
        self._followers = tuple(followers)
        self._interval = interval
        self._heard = heard
        self._etag = ""
        self._stopping = threading.Event()
        self._thread = SupervisedThread(self._watch, name="hint-watch", stopping=self._stopping)

    def follow(self, follower: Follower) -> None:
        """Wake `follower` too; to be called before it starts, or it may miss what is promoted meanwhile."""
        self._followers = (*self._followers, follower)

    def forget(self, follower: Follower) -> None:
        """Wake `follower` no more; to be called where `follow` is."""
        self._followers = tuple(each for each in self._followers if each is not follower)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop watching."""
        self._stopping.set()
        self._thread.join(timeout)

    def _watch(self) -> None:
        while not self._stopping.wait(self._interval * (1 - random.random() / 10)):  # noqa: S311 - jitter is no secret
            try:
                self.look()
            except FerryError as error:  # the followers tell of a store that is away, each in its time
                log.debug("the hint could not be read", reason=str(error))
            except Exception:
                log.exception("unexpected fault while watching the hint")

    def look(self) -> None:
        """Wake every follower whose channel has come further than it has.

        Raises:
            StoreError: the store does not answer.
        """
        try:
            stored = self._store.get_if_changed(HINT, self._etag) if self._etag else self._store.get(HINT)
            if stored is None:
                return
            hint = Hint.decode(stored.data, key=HINT)
        except (ObjectMissingError, CorruptDocumentError):
            # no hint to go by: they must all look for themselves
            self._wake(self._followers)
            return
        self._wake([follower for follower in self._followers if _is_behind(follower, hint)])
        if self._heard is not None:
            self._heard(hint)
        self._etag = stored.etag  # last: where a hint could not be acted upon, it is read again

    def _wake(self, followers: Sequence[Follower]) -> None:
        for follower in followers:
            follower.wake()


def _is_behind(follower: Follower, hint: Hint) -> bool:
    return hint.model(follower.model).channels.get(follower.channel, 0) > follower.handled
