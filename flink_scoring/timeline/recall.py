"""Older generations, loaded again for the records that they scored before a restore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ferryline.flink_scoring.timeline.rules import Assigned
from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.follower.loading import LocalLoader
from ferryline.model_runtime.follower.rules import Phase
from ferryline.model_runtime.follower.stages import Candidate, Part, Stages
from ferryline.model_runtime.served import Canary, ServedModel
from ferryline.registry.canary import CanarySplit
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ChannelEntry, ModelFacts, utc_now
from ferryline.registry.errors import RefusedError, UntrustedAnswerError

TRIES = 6
"""So often a generation is asked for until what the store does not show of it counts as gone; 3 seconds."""

_STAGES = (Phase.FETCHING, Phase.VERIFYING, Phase.LOADING, Phase.WARMING)


class Recall:
    """Loads generations of one channel, through the same gate as what serves.

    Args:
        registry: where they come from.
        model: the model.
        channel: its channel.
        cache: a folder for verified files.
        accept: the consumer's own demand on a contract; raises `RefusedError` where it is not met.
        kept: finds what is warm already, by the digest of its manifest.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        channel: str,
        *,
        cache: Path,
        accept: Callable[[ModelFacts], None],
        kept: Callable[[str], ServedModel | None],
    ) -> None:
        self._channel = registry.channel(model, channel)
        self._faults: Counter[Assigned] = Counter()
        self._stages = Stages(registry, BlobCache(cache), kept, LocalLoader(), accept)

    def load(self, wanted: Assigned) -> ServedModel:
        """The generation, with its canary where it had one.

        Raises:
            RefusedError: it can be had no more: another channel, a version that a gate refuses, or that the
                store did not show at so many tries.
            FerryError: it could not be had for now.
        """
        try:
            served = self._load(wanted)
        except UntrustedAnswerError as error:
            self._faults[wanted] += 1
            if self._faults[wanted] < TRIES:
                raise
            raise _gone(wanted, str(error)) from error
        del self._faults[wanted]
        return served

    def _load(self, wanted: Assigned) -> ServedModel:
        entry = self._entry(wanted)
        candidate = Candidate(entry)
        for stage in _STAGES:
            self._stages.run(stage, candidate, None)
        served = _served(entry, candidate.stable)
        if candidate.canary is None or entry.canary is None:
            return served
        split = CanarySplit(str(self._channel), entry.canary.version, entry.canary.percent)
        return replace(served, canary=Canary(_served(entry, candidate.canary), split))

    def _entry(self, wanted: Assigned) -> ChannelEntry:
        if wanted.channel != str(self._channel):
            raise _gone(wanted, f"the pipeline follows {self._channel} now")
        entry = self._channel.get(wanted.generation)
        if entry.blob_digest != wanted.digest:
            raise _gone(wanted, "the channel's log was replaced")
        return entry


def _served(entry: ChannelEntry, part: Part) -> ServedModel:
    return ServedModel(part.require_manifest(), entry, part.require_session(), utc_now())


def _gone(wanted: Assigned, reason: str) -> RefusedError:
    return RefusedError(
        "replay",
        f"generation {wanted.generation} of {wanted.channel} scored these records: {reason}",
        "The version that serves now scores them",
    )
