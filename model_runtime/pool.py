"""The versions of one channel that stay warm: a bounded number, within a memory budget.

What serves, its canary and what served before stay whatever they take. Of the rest, those go first that
serve longest ago. A request for a version by its number does not make it stay longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from model_runtime.served import ServedModel

MIB = 2**20


@dataclass(frozen=True, slots=True)
class WarmLimits:
    """How much stays warm for one channel.

    Args:
        versions: the most versions, what serves included.
        size: bytes of memory for all of them, by `OnnxSession.memory`.
    """

    versions: int = 2
    size: int = 64 * MIB


def too_many(sizes: Mapping[str, int], protected: frozenset[str], limits: WarmLimits) -> Iterator[str]:
    """What must go, in this order.

    Args:
        sizes: bytes by name, what served longest ago first.
        protected: names of what stays whatever it takes.
        limits: what may stay.
    """
    count, size = len(sizes), sum(sizes.values())
    for name in sizes:
        if count <= limits.versions and size <= limits.size:
            return
        if name not in protected:
            count, size = count - 1, size - sizes[name]
            yield name


class WarmPool:
    """The warm versions of one channel. One thread changes it; any may read its attributes.

    Attributes:
        current: what serves.
        previous: what served before the present session, without the canary it may have had.
        warm: each version once: what serves, its canary, what served before, then the most recent first.
    """

    def __init__(self, limits: WarmLimits | None = None) -> None:
        self._limits = limits or WarmLimits()
        self._kept: dict[str, ServedModel] = {}
        self.current: ServedModel | None = None
        self.previous: ServedModel | None = None
        self.warm: tuple[ServedModel, ...] = ()

    @property
    def serving(self) -> tuple[ServedModel, ...]:
        """What serves: a version, and perhaps a canary."""
        return _parts(self.current)

    @property
    def size(self) -> int:
        """Bytes that all of them take, as estimated."""
        return sum(served.session.memory for served in self.warm)

    def find(self, manifest_digest: str) -> ServedModel | None:
        """The warm version with that manifest, None where it must be fetched and loaded."""
        return self._kept.get(manifest_digest)

    def serve(self, served: ServedModel) -> None:
        """Let `served` be what serves, and drop what is too much."""
        replaced = self.current
        self.current = served
        if replaced is not None and replaced.session is not served.session:
            self.previous = _alone(replaced)
        for model in (*reversed(_parts(replaced)), *reversed(_parts(served))):
            # what is kept must not keep a canary alive that goes
            digest = model.manifest.digest
            self._kept.pop(digest, None)
            self._kept[digest] = _alone(model)
        self._drop()
        ordered = (*_parts(served), *_parts(self.previous), *reversed(self._kept.values()))
        warm: dict[str, ServedModel] = {}
        for model in ordered:
            warm.setdefault(model.manifest.digest, model)
        self.warm = tuple(warm.values())

    def _drop(self) -> None:
        sizes = {digest: model.session.memory for digest, model in self._kept.items()}
        stay = (*_parts(self.current), *_parts(self.previous))
        protected = frozenset(model.manifest.digest for model in stay)
        for digest in list(too_many(sizes, protected, self._limits)):
            del self._kept[digest]


def _parts(served: ServedModel | None) -> tuple[ServedModel, ...]:
    """A version, and perhaps a canary beside it."""
    if served is None:
        return ()
    return (served,) if served.canary is None else (served, served.canary.model)


def _alone(served: ServedModel) -> ServedModel:
    return served if served.canary is None else replace(served, canary=None)
