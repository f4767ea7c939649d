"""Reads what keeps files from being collected: channels, consumers and the newest versions.

What cannot be read might refer to anything, so then nothing may be collected: every fault is raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from ferryline.registry.catalogue import Registry
from ferryline.registry.collection import (
    GONE_AFTER,
    Reference,
    Retention,
    Why,
    of_channel,
    of_consumer,
    of_version,
)
from ferryline.registry.contents import Contents
from ferryline.registry.documents import ChannelEntry, Heartbeat, Manifest
from ferryline.registry.errors import BrokenChainError, NotFoundError, UntrustedAnswerError
from ferryline.registry.log import READERS
from ferryline.registry.parallel import in_order
from ferryline.registry.stores.base import ObjectMissingError


class ReferenceReader:
    """Reads references again and again; what was read once of a log is not read again.

    Args:
        registry: what to read.
        retention: how far back.
        on_read: told of every document read, for a progress bar; from any thread.
        readers: how many documents are read at a time.
    """

    def __init__(
        self,
        registry: Registry,
        retention: Retention,
        *,
        on_read: Callable[[], None] = lambda: None,
        readers: int = READERS,
    ) -> None:
        self._registry = registry
        self._retention = retention
        self._on_read = on_read
        self._readers = readers
        self._manifests: dict[tuple[str, int], Manifest] = {}
        self._entries: dict[tuple[str, str, int], ChannelEntry] = {}

    def read(self, contents: Contents, *, now: datetime) -> list[Reference]:
        """What refers to files.

        Args:
            contents: a listing of the store's models and consumers, made just now.
            now: the store's time.

        Raises:
            UntrustedAnswerError: something cannot be read; nobody knows what it refers to.
            StoreError: the store does not answer.
        """
        self._read_ahead(contents)
        return [
            *self._of_channels(contents),
            *self._of_versions(contents),
            *self._of_consumers(contents, now),
        ]

    def manifest(self, model: str, version: int) -> Manifest:
        """A manifest, read once.

        Raises:
            UntrustedAnswerError: it cannot be read as the manifest of that version.
        """
        if (model, version) not in self._manifests:
            self._manifests[model, version] = self._registry.versions(model).get(version)
            self._on_read()
        return self._manifests[model, version]

    def digests(self, places: Iterable[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], str | None]]:
        """The digest of each version's file, in order; None where the manifest cannot be read."""

        def digest(place: tuple[str, int]) -> tuple[tuple[str, int], str | None]:
            try:
                return place, self.manifest(*place).blob.digest
            except (UntrustedAnswerError, NotFoundError):
                return place, None

        return in_order(digest, places, readers=self._readers)

    def _entry(self, model: str, channel: str, generation: int) -> ChannelEntry:
        place = (model, channel, generation)
        if place not in self._entries:
            self._entries[place] = self._registry.channel(model, channel).get(generation)
            self._on_read()
        return self._entries[place]

    def _read_ahead(self, contents: Contents) -> None:
        entries = [
            (model, channel, number)
            for (model, channel), log in contents.channels.items()
            for number in self._near_head(log)
        ]
        manifests = [
            (model, number) for model, log in contents.versions.items() for number in self._newest(log)
        ]
        deque(in_order(lambda place: self._entry(*place), entries, readers=self._readers), maxlen=0)
        deque(in_order(lambda place: self.manifest(*place), manifests, readers=self._readers), maxlen=0)

    def _near_head(self, log: Iterable[int]) -> list[int]:
        return sorted(log)[-(self._retention.rollback_depth + 1) :]

    def _newest(self, log: Iterable[int]) -> list[int]:
        return sorted(log)[-self._retention.keep_versions :]

    def _of_channels(self, contents: Contents) -> Iterator[Reference]:
        for (model, channel), log in contents.channels.items():
            *older, head = (self._entry(model, channel, generation) for generation in self._near_head(log))
            yield from of_channel(head, [*older, *self._undo_chain(head)])

    def _undo_chain(self, head: ChannelEntry) -> Iterator[ChannelEntry]:
        entry = head
        for _ in range(self._retention.rollback_depth):
            if entry.undoes_to is None:
                return
            if entry.undoes_to >= entry.generation:
                raise BrokenChainError(
                    f"generation {entry.generation} of {head.model}:{head.channel} is undone "
                    f"to {entry.undoes_to}, which is no older one"
                )
            entry = self._entry(head.model, head.channel, entry.undoes_to)
            yield entry

    def _of_versions(self, contents: Contents) -> Iterator[Reference]:
        for model, log in contents.versions.items():
            for version in self._newest(log):
                yield of_version(self.manifest(model, version))

    def _of_consumers(self, contents: Contents, now: datetime) -> Iterator[Reference]:
        for listed in contents.heartbeats.values():
            if now - listed.modified_at > GONE_AFTER:
                continue
            heartbeat = self._heartbeat(listed.key)
            if heartbeat is not None:
                yield from of_consumer(heartbeat)
                yield from self._by_number(heartbeat, contents)

    def _heartbeat(self, key: str) -> Heartbeat | None:
        try:
            return Heartbeat.decode(self._registry.store.get(key).data, key=key)
        except ObjectMissingError:  # it left since it was listed
            return None
        except UntrustedAnswerError as error:
            raise UntrustedAnswerError(
                f"{error}. What this consumer serves is not known; if none of this name is running, "
                f"remove {key}"
            ) from error

    def _by_number(self, heartbeat: Heartbeat, contents: Contents) -> Iterator[Reference]:
        """What a heartbeat names by its version alone, as the canary in one of an earlier release."""
        for report in heartbeat.models:
            by_number = {
                None if report.canary_digest else report.canary_version,
                None if report.digest else report.version,
            }
            for version in by_number & contents.versions.get(report.model, {}).keys():
                digest = self.manifest(report.model, int(version or 0)).blob.digest
                yield Reference(digest, Why.CONSUMER, heartbeat.consumer)
