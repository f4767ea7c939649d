"""`hint.json`: how far each log has come, rewritten after every entry.

It wakes followers of many models with one conditional read, and spares writers the listing of a long log.
It is never trusted: a log that it names is read at that number and beyond, and a hint that is lost, stale or
wrong costs time and nothing else. So every failure to read or write it is passed over. A rewrite replaces
what was read and nothing newer, so that the news of two writers at once are both told; only where no attempt
of several succeeds, it replaces whatever is there.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import Annotated, ClassVar

from pydantic import Field

from ferryline.registry.errors import CorruptDocumentError, StoreError, UsageError
from ferryline.registry.keys import HINT, NUMBER_WIDTH
from ferryline.registry.schema import Document, Record
from ferryline.registry.stores.base import ObjectMissingError, Store, Stored

# of the writers that rewrite it at once one succeeds each time
_ATTEMPTS = 16
_PAUSE = 0.02  # seconds, times the attempts so far

FURTHEST_AHEAD = 64
"""So far may others have come since an entry was written; what claims more is taken for wrong, and mended."""

# what no log can count to is no hint
_Number = Annotated[int, Field(ge=0, lt=10**NUMBER_WIDTH)]


class ModelHint(Record):
    """How many versions a model has, and the newest generation of each of its channels: at least so many."""

    versions: _Number = 0
    channels: dict[str, _Number] = Field(default_factory=dict)


class Hint(Document):
    """What the logs of a registry have come to."""

    kind: ClassVar[str] = "hint"

    models: dict[str, ModelHint] = Field(default_factory=dict)

    def model(self, name: str) -> ModelHint:
        """What is known of a model."""
        return self.models.get(name, ModelHint())


class Hints:
    """The hint of `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Hint:
        """The hint; an empty one where there is none that can be read."""
        try:
            return _decoded(self._store.get(HINT))
        except (ObjectMissingError, StoreError):
            return Hint()

    def versions(self, model: str) -> int:
        """So many versions `model` has at least, if the hint is right."""
        return self.read().model(model).versions

    def generation(self, model: str, channel: str) -> int:
        """The generation that `channel` has reached at least, if the hint is right."""
        return self.read().model(model).channels.get(channel, 0)

    def tell_version(self, model: str, version: int) -> None:
        """Say that `version` was published."""
        self._tell(model, ModelHint(versions=version))

    def tell_generation(self, model: str, channel: str, generation: int) -> None:
        """Say that `channel` reached `generation`."""
        self._tell(model, ModelHint(channels={channel: generation}))

    def _tell(self, model: str, news: ModelHint) -> None:
        with contextlib.suppress(StoreError, UsageError):  # the latter: it holds what JSON cannot hold
            for attempt in range(_ATTEMPTS):
                time.sleep(attempt * _PAUSE * random.random())  # noqa: S311 - jitter is no secret
                if self._is_told(model, news):
                    return
            # the condition never held, as where a proxy changes tags: better another's news late than all
            self._store.put(HINT, _told(_decoded(self._store.get(HINT)), model, news).encode())

    def _is_told(self, model: str, news: ModelHint) -> bool:
        """Try once; False where another writer was quicker, whose news must not be lost."""
        try:
            stored = self._store.get(HINT)
        except ObjectMissingError:
            return self._store.put_if_absent(HINT, _told(Hint(), model, news).encode())
        except CorruptDocumentError:  # too large to be read
            self._store.put(HINT, _told(Hint(), model, news).encode())
            return True
        present = _decoded(stored)
        told = _told(present, model, news)
        return told == present or self._store.put_if_unchanged(HINT, told.encode(), stored.etag)


def _decoded(stored: Stored) -> Hint:
    try:
        return Hint.decode(stored.data, key=HINT)
    except StoreError:
        return Hint()


def _told(hint: Hint, model: str, news: ModelHint) -> Hint:
    merged = _merged(hint.model(model), news)
    if merged == hint.model(model):
        return hint
    return hint.model_copy(update={"models": {**hint.models, model: merged}})


def _merged(old: ModelHint, news: ModelHint) -> ModelHint:
    channels = {name: _later(old.channels.get(name, 0), number) for name, number in news.channels.items()}
    return old.model_copy(
        update={
            "versions": _later(old.versions, news.versions) if news.versions else old.versions,
            "channels": {**old.channels, **channels},
        }
    )


def _later(claimed: int, written: int) -> int:
    return claimed if written <= claimed <= written + FURTHEST_AHEAD else written
