"""The versions that stay warm: a bounded number of each channel, within one memory budget for all.

What serves, its canary and what served before stay whatever they take. Of the rest, those go first that
served longest ago, in whichever channel that was. A request for a version by its number does not make it
stay longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ferryline.model_runtime.served import ServedModel

MIB = 2**20
SIZE = 64 * MIB


@dataclass(frozen=True, slots=True)
class WarmLimits:
    """How much stays warm.

    Args:
        versions: the most versions of a channel, what serves included.
        size: bytes of memory for all versions on a shelf, by `OnnxSession.memory`.
    """

    versions: int = 2
    size: int = SIZE


def surplus(costs: Mapping[str, int], protected: Collection[str], most: int) -> Iterator[str]:
    """What must go, in this order, until the rest costs no more than `most` or only the protected are left.

    Args:
        costs: costs by name, what served longest ago first.
        protected: names of what stays whatever it costs.
        most: what all may cost together.
    """
    total = sum(costs.values())
    for name, cost in costs.items():
        if total <= most:
            return
        if name not in protected:
            total -= cost
            yield name


class WarmShelf:
    """Where the pools of a process keep their versions: one budget, and a version of two channels only once.

    Args:
        size: bytes of memory for all of them.
    """

    def __init__(self, size: int = SIZE) -> None:
        self.lock = threading.Lock()
        self._size = size
        self._pools: list[WarmPool] = []
        self._by_age: dict[str, None] = {}
        """Digests of manifests, what served longest ago first."""

    def add(self, pool: WarmPool) -> None:
        """Count what `pool` keeps."""
        with self.lock:
            self._pools = [*self._pools, pool]

    def remove(self, pool: WarmPool) -> None:
        """Count it no more; what it keeps is its own."""
        with self.lock:
            self._pools = [each for each in self._pools if each is not pool]

    def find(self, manifest_digest: str) -> ServedModel | None:
        """The version with that manifest, whichever channel it is warm in."""
        found = (pool.find(manifest_digest) for pool in self._pools)
        return next((served for served in found if served is not None), None)

    def settle(self, served: Sequence[str]) -> list[WarmPool]:
        """Drop what is too much now that those `served`, the newest last, and say whose it was.

        Its caller holds `lock`.
        """
        kept = {digest: model for pool in self._pools for digest, model in pool.kept.items()}
        for digest in served:
            self._by_age.pop(digest, None)
            self._by_age[digest] = None
        self._by_age = {digest: None for digest in self._by_age if digest in kept}
        costs = {digest: kept[digest].session.memory for digest in self._by_age}
        protected = {digest for pool in self._pools for digest in pool.protected}
        gone = set(surplus(costs, protected, self._size))
        return [pool for pool in self._pools if pool.drop(gone)]


class WarmPool:
    """The warm versions of one channel. One thread lets them serve; any may read its attributes.

    Args:
        limits: how many there may be, and how much where no shelf says it.
        shelf: what it shares with the pools of other channels.
        trimmed: called when another channel took the room of some of them, on that one's thread.

    Attributes:
        current: what serves.
        previous: what served before the present session, without the canary it may have had.
        kept: all of them by the digests of their manifests, what served longest ago first.
        warm: each version once: what serves, its canary, what served before, then the most recent first.
    """

    def __init__(
        self,
        limits: WarmLimits | None = None,
        shelf: WarmShelf | None = None,
        trimmed: Callable[[], object] = lambda: None,
    ) -> None:
        self._limits = limits or WarmLimits()
        self._shelf = shelf or WarmShelf(self._limits.size)
        self._trimmed = trimmed
        self.kept: dict[str, ServedModel] = {}
        self.current: ServedModel | None = None
        self.previous: ServedModel | None = None
        self.warm: tuple[ServedModel, ...] = ()
        self._shelf.add(self)

    @property
    def serving(self) -> tuple[ServedModel, ...]:
        """What serves: a version, and perhaps a canary."""
        return _parts(self.current)

    @property
    def size(self) -> int:
        """Bytes that all of them take, as estimated."""
        return sum(served.session.memory for served in self.warm)

    @property
    def protected(self) -> frozenset[str]:
        """Digests of what stays whatever it takes."""
        stay = (*_parts(self.current), *_parts(self.previous))
        return frozenset(model.manifest.digest for model in stay)

    def find(self, manifest_digest: str) -> ServedModel | None:
        """The warm version with that manifest, None where it must be fetched and loaded."""
        return self.kept.get(manifest_digest)

    def serve(self, served: ServedModel) -> None:
        """Let `served` be what serves, and drop what is too much."""
        with self._shelf.lock:
            changed = self._shelf.settle(self._put(served))
            self._order()
        for pool in changed:
            if pool is not self:
                pool._trimmed()  # noqa: SLF001 - a pool like this one

    def drop(self, digests: Collection[str]) -> bool:
        """Keep those no more; True if it kept one. The shelf's lock is held."""
        found = [digest for digest in digests if self.kept.pop(digest, None) is not None]
        if found:
            self._order()
        return bool(found)

    def close(self) -> None:
        """Take no more room from others; what is warm stays so for whoever holds it."""
        self._shelf.remove(self)

    def clear(self) -> None:
        """Keep nothing; to be called once it is closed."""
        self.kept, self.warm = {}, ()
        self.current = self.previous = None

    def _put(self, served: ServedModel) -> list[str]:
        """Keep it, and say what serves or did until now, that first."""
        replaced = self.current
        self.current = served
        if replaced is not None and replaced.session is not served.session:
            self.previous = _alone(replaced)
        kept = dict(self.kept)
        recent = (*reversed(_parts(replaced)), *reversed(_parts(served)))
        for model in recent:
            # what is kept must not keep a canary alive that goes
            digest = model.manifest.digest
            kept.pop(digest, None)
            kept[digest] = _alone(model)
        for digest in list(surplus(dict.fromkeys(kept, 1), self.protected, self._limits.versions)):
            del kept[digest]
        self.kept = kept
        return [model.manifest.digest for model in recent]

    def _order(self) -> None:
        ordered = (*_parts(self.current), *_parts(self.previous), *reversed(self.kept.values()))
        warm: dict[str, ServedModel] = {}
        for model in ordered:
            warm.setdefault(model.manifest.digest, model)
        self.warm = tuple(warm.values())


def _parts(served: ServedModel | None) -> tuple[ServedModel, ...]:
    """A version, and perhaps a canary beside it."""
    if served is None:
        return ()
    return (served,) if served.canary is None else (served, served.canary.model)


def _alone(served: ServedModel) -> ServedModel:
    return served if served.canary is None else replace(served, canary=None)
