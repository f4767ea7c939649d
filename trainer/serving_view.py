"""What serves a channel, as the promotion policy is told it: few reads; what cannot be read is unknown."""

from __future__ import annotations

from typing import Any

import structlog

from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.errors import NotFoundError, UntrustedAnswerError
from ferryline.streams.pipeline import Pipeline, PromotionMode
from ferryline.trainer.promotion import Served, Serving, recently_served

_ENTRIES_A_VERSION = 4  # so many are read for each version of `best_of`, holds and canaries included
_READS = 2  # what is not as it should be at the first may be so at the second


class ServingView:
    """What serves a pipeline's channel, and what served it lately.

    A start reads at most `best_of` manifests and four times as many entries; later looks read what is new.
    """

    def __init__(self, registry: Registry, pipeline: Pipeline, *, log: Any = None) -> None:
        self._registry = registry
        self._spec = pipeline.promotion
        self._channel = registry.channel(pipeline.model, pipeline.channel)
        self._log = log or structlog.get_logger()
        self._entries: dict[str, ChannelEntry] = {}  # by digest
        self._accuracies: dict[str, float | None] = {}  # by the manifest's digest
        self._told: set[str] = set()

    def head(self) -> ChannelEntry | None:
        """The channel's newest entry."""
        return self._channel.head()

    def of(self, head: ChannelEntry | None) -> Serving | None:
        """What `head` lets serve, with the accuracies that its policy asks for; None where nothing serves.

        Raises:
            StoreError: the store does not answer.
        """
        if head is None:
            return None
        window = self._window(head) if self._spec.mode is PromotionMode.NO_WORSE else [head]
        accuracies = {entry.manifest_digest: self._accuracy(entry) for entry in [head, *window]}
        self._accuracies = {digest: known for digest, known in accuracies.items() if known is not None}
        return Serving(
            version=head.version,
            generation=head.generation,
            held=head.held,
            accuracy=accuracies[head.manifest_digest],
            canary=head.canary.version if head.canary else None,
            recent=tuple(Served(entry.version, accuracies[entry.manifest_digest]) for entry in window),
            digest=head.manifest_digest,
        )

    def _window(self, head: ChannelEntry) -> list[ChannelEntry]:
        """The entries that set the standard, newest first; those that kept a version do not fill it."""
        entries = [head]
        while len(entries) < _ENTRIES_A_VERSION * self._spec.best_of and entries[-1].generation > 1:
            before = self._before(entries[-1])
            if before is None:
                break
            entries.append(before)
            found = recently_served(entries)[:-1]  # the oldest may be a canary's rollback
            if len(found) >= self._spec.best_of or (found and not found[-1].automatic):
                break
        self._entries = {entry.digest: entry for entry in entries}
        return recently_served(entries)[: self._spec.best_of]

    def _before(self, entry: ChannelEntry) -> ChannelEntry | None:
        """The entry before, None where it cannot be read: then the standard is what comes after it."""
        known = self._entries.get(entry.previous or "")
        if known is not None:
            return known
        try:
            found = self._channel.get(entry.generation - 1)
        except UntrustedAnswerError as error:
            self._tell_once(f"generation {entry.generation - 1}", error)
            return None
        return found if found.digest == entry.previous else None

    def _accuracy(self, entry: ChannelEntry) -> float | None:
        if entry.manifest_digest in self._accuracies:
            return self._accuracies[entry.manifest_digest]
        manifest = self._manifest(entry)
        return accuracy_of(manifest) if manifest else None

    def _manifest(self, entry: ChannelEntry) -> Manifest | None:
        """The manifest of a version that served, None where it cannot be read."""
        for read in range(1, _READS + 1):
            try:
                manifest = self._registry.versions(entry.model).get(entry.version)
            except (UntrustedAnswerError, NotFoundError) as error:
                if read == _READS:
                    self._tell_once(f"version {entry.version}", error)
            else:
                if manifest.digest == entry.manifest_digest:
                    return manifest
                if read == _READS:
                    self._tell_once(
                        f"version {entry.version}", "its manifest is not the one that was promoted"
                    )
        return None

    def _tell_once(self, what: str, why: object) -> None:
        if what not in self._told:
            self._told.add(what)
            self._log.warning(
                "serving_unreadable",
                what=f"{what} of {self._channel}",
                error=str(why),
                policy="its accuracy counts as unknown; promotion goes on",
                remedy="ferry verify",
            )


def accuracy_of(manifest: Manifest) -> float | None:
    """The prequential accuracy of a version, None where its manifest has none."""
    return manifest.evaluation.metrics.get("accuracy") if manifest.evaluation else None
