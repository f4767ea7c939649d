"""The channel's log as it truly is, whatever anyone was told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ferryline.registry.documents import ChannelEntry, Manifest, ModelFacts, Operation


@dataclass(frozen=True, slots=True)
class Written:
    """An entry, when it was written by the store's clock, and whether nobody trusted wrote it."""

    entry: ChannelEntry
    at: float
    forged: bool = False


class Log:
    """Every entry that lies in the store, and what follows from them.

    Attributes:
        written: the entries by generation.
        manifests: by digest.
        taken_back: digests of the entries that a human took back, with the entry that did.
    """

    def __init__(self) -> None:
        self.written: dict[int, Written] = {}
        self.manifests: dict[str, Manifest] = {}
        self.taken_back: dict[str, Written] = {}

    @property
    def head(self) -> Written | None:
        """The newest entry."""
        return self.written[max(self.written)] if self.written else None

    @property
    def trusted_head(self) -> Written | None:
        """The newest entry that is trusted."""
        trusted = [number for number, written in self.written.items() if not written.forged]
        return self.written[max(trusted)] if trusted else None

    def add(self, generation: int, entry: ChannelEntry, *, at: float, forged: bool) -> None:
        """An entry was written."""
        written = Written(entry, at, forged)
        self.written[generation] = written
        before = self.written.get(generation - 1)
        if forged or before is None or entry.operation is not Operation.ROLLBACK:
            return
        if entry.version != before.entry.version:
            for taken in self._stretch(before.entry):
                self.taken_back[taken.digest] = written

    def remove(self, generation: int) -> None:
        """An entry was taken out."""
        self.written.pop(generation, None)

    def keep(self, is_there: Callable[[int], bool]) -> None:
        """A backup was restored, and these are left."""
        self.written = {number: each for number, each in self.written.items() if is_there(number)}
        left = {each.entry.digest for each in self.written.values()}
        self.taken_back = {
            digest: by for digest, by in self.taken_back.items() if by.entry.digest in left and digest in left
        }

    def has(self, entry: ChannelEntry) -> bool:
        """Whether that very entry lies in the log."""
        written = self.written.get(entry.generation)
        return written is not None and written.entry.digest == entry.digest

    def manifest_of(self, version: int) -> Manifest | None:
        """The manifest of a version."""
        return next((each for each in self.manifests.values() if each.version == version), None)

    def facts_of(self, entry: ChannelEntry) -> ModelFacts | None:
        """The contract of what an entry names."""
        return self.manifests.get(entry.manifest_digest)

    def between(self, older: int, newer: int) -> Iterator[ChannelEntry]:
        """The trusted entries beyond `older`, up to and with `newer`."""
        for generation in range(older + 1, newer + 1):
            written = self.written.get(generation)
            if written is not None and not written.forged:
                yield written.entry

    def way_back(self, entry: ChannelEntry) -> Iterator[ChannelEntry]:
        """What rollbacks of `entry` lead to, nearest first."""
        while entry.undoes_to is not None and entry.undoes_to < entry.generation:
            written = self.written.get(entry.undoes_to)
            if written is None:
                return
            entry = written.entry
            yield entry

    def chooses(self, entry: ChannelEntry) -> bool:
        """Whether an entry is somebody's choice of the version that it names."""
        before = self.written.get(entry.generation - 1)
        if entry.operation is Operation.PROMOTE:
            return entry.canary is None
        if entry.operation is Operation.ROLLBACK:
            # one that ends a canary leaves what serves beside it
            return before is None or before.entry.canary is None or before.entry.version != entry.version
        return False

    def _stretch(self, entry: ChannelEntry) -> Iterator[ChannelEntry]:
        """`entry` and the entries just before it that name the same version."""
        yield entry
        while not self.chooses(entry):
            before = self.written.get(entry.generation - 1)
            if before is None:
                return
            entry = before.entry
            yield entry
