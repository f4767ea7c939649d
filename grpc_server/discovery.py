"""Finds the models of a registry that have a channel: all at the start, new ones as they come.

The registry's hint tells of new ones at once and a listing every `FULL_READ_INTERVAL` seconds of those that
no hint told of. What is gone from the registry is not looked for: it stays served.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence

import structlog

from ferryline.model_runtime.hint_watch import FULL_READ_INTERVAL
from ferryline.registry import keys
from ferryline.registry.catalogue import Registry
from ferryline.registry.errors import FerryError
from ferryline.registry.hints import Hint
from ferryline.registry.names import is_name

FIRST_RETRY = 1.0
"""Seconds between two tries of the first listing; nothing is served before one succeeds."""

log = structlog.get_logger(__name__)


class Discovery:
    """Looks for models on a thread of its own.

    Args:
        registry: where to look.
        channel: what a model must have.
        known: names of models that need not be found.
        found: told the names of new ones, on this object's thread; the first call tells of all that there are
            at the start, be it none.
    """

    def __init__(
        self, registry: Registry, channel: str, known: Iterable[str], found: Callable[[Sequence[str]], object]
    ) -> None:
        self._registry = registry
        self._channel = channel
        self._known = set(known)
        self._found = found
        self._hinted: frozenset[str] = frozenset()
        self._listed = False
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._discover, name="discovery", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop looking."""
        self._stopping = True
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def hinted(self, hint: Hint) -> None:
        """Look at the models that the hint names and that are not known yet; at once, and elsewhere."""
        named = (name for name, model in hint.models.items() if self._channel in model.channels)
        self._hinted = frozenset(named).difference(self._known)
        if self._hinted:
            self._woken.set()

    def look(self, names: Iterable[str]) -> None:
        """Tell of those among `names` that are not known yet and have the channel.

        Raises:
            StoreError: the store does not answer.
        """
        new = [name for name in names if name not in self._known and self._has_channel(name)]
        self._known.update(new)
        if new or not self._listed:
            self._listed = True
            self._found(new)

    def _has_channel(self, name: str) -> bool:
        return is_name(name) and self._channel in self._registry.channels(name)

    def _all(self) -> Iterable[str]:
        return list(self._registry.store.folders(keys.MODELS))

    def _discover(self) -> None:
        names: Callable[[], Iterable[str]] = self._all
        while not self._stopping:
            try:
                self.look(names())
            except FerryError as error:
                log.warning("models could not be looked for", reason=str(error))
            except Exception:
                log.exception("unexpected fault while looking for models")
            names = self._hints if self._rest() else self._all

    def _hints(self) -> Iterable[str]:
        return self._hinted

    def _rest(self) -> bool:
        """Wait until the next listing is due; True if a hint came before."""
        seconds = FULL_READ_INTERVAL if self._listed else FIRST_RETRY
        woken = self._woken.wait(seconds * (1 - random.random() / 10))  # noqa: S311 - jitter is no secret
        self._woken.clear()
        return woken and self._listed
