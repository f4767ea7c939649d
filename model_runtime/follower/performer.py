"""Performs what the follower's rules decide: reads the channel, takes candidates through, swaps."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.follower import rules
from ferryline.model_runtime.follower.stages import Candidate, Kept, Loader, Part, Stages
from ferryline.model_runtime.follower.trusted import WHOLE_INTERVAL, TrustedChannel
from ferryline.model_runtime.pool import WarmPool
from ferryline.model_runtime.served import Canary, ServedModel
from ferryline.registry.canary import CanarySplit
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ChannelEntry, ModelFacts, utc_now
from ferryline.registry.errors import FerryError, RefusedError
from ferryline.registry.ratchet import Ratchet

_FURTHEST_BACK = 10
"""How many older versions a newcomer tries before it waits for a newer one."""
_TRIES_BEHIND = 2
"""So often it tries one that fails for now until it tries the one before."""


class Performer:
    """One follower's hands; used by its thread alone.

    Args:
        registry: where to look.
        model: the model to follow.
        channel: its channel.
        consumer: who is written into the ledger of refusals.
        cache: a folder for verified files.
        loader: loads and warms what passed the gate.
        accept: the consumer's own demand on a contract.
        ratchet: remembers the highest generation across restarts; None forgets it.
        whole_interval: seconds between two looks at whether the log is still whole.
        pool: where warm versions are kept.
        kept: finds those that need not be fetched and loaded; None for the pool alone.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        channel: str,
        *,
        consumer: str,
        cache: Path,
        loader: Loader,
        accept: Callable[[ModelFacts], None] | None,
        ratchet: Ratchet | None = None,
        whole_interval: float = WHOLE_INTERVAL,
        pool: WarmPool | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.pool = pool or WarmPool()
        self.swap_seconds = 0.0
        self.polled_at: datetime | None = None
        self.urgent = False
        """Whether a rollback is among the entries that the candidate was found with."""
        self._channel = registry.channel(model, channel)
        self._trusted = TrustedChannel(self._channel, ratchet, whole_interval=whole_interval)
        self._refusals = registry.refusals(model)
        self._consumer = consumer
        self._stages = Stages(registry, BlobCache(cache), kept or self.pool.find, loader, accept)
        self._handled: ChannelEntry | None = None
        self._candidate: Candidate | None = None
        self._known = 0
        """The newest trusted generation when the candidate was chosen."""
        self._refused: set[str] = set()
        """Digests of entries that were refused since something else served."""
        self._tries: Counter[str] = Counter()
        """How often an entry was tried in this round of looking back, by its digest."""
        self._left = ""
        """Digest of the manifest that a fall-back left, until something else is put to serve."""
        self._found_at = 0.0

    def poll(self) -> rules.Event:
        """Look for newer generations; the newest of them is the candidate."""
        news = self._trusted.news(self._handled)
        self.polled_at = utc_now()
        if news is None:
            return rules.NothingNew()
        if news.entry.manifest_digest == self._left and not news.chosen:
            self._raise_handled(news.entry)  # nobody asked for another try
            return rules.NothingNew()
        self.urgent = news.taken_back > 0
        return rules.Found(self._consider(news.entry, trusted=news.trusted))

    def look_back(self) -> rules.Event:
        """Find the nearest version that rollbacks lead to, of those neither refused nor tried too often."""
        newest = self._trusted.newest
        if newest is not None:
            for entry in islice(self._behind(newest), _FURTHEST_BACK):
                if entry.digest not in self._refused and self._tries[entry.digest] < _TRIES_BEHIND:
                    self._tries[entry.digest] += 1
                    return rules.FoundBehind(self._consider(entry))
        nothing = rules.NothingBehind(for_now=bool(set(self._tries) - self._refused))
        self._tries.clear()
        return nothing

    def run(self, stage: rules.Phase) -> rules.Event:
        """Take the candidate through a stage."""
        current = self.pool.current
        incumbent = current.manifest if current else None
        self._stages.run(stage, self._require_candidate(), incumbent)
        return rules.Passed()

    def swap(self) -> rules.Event:
        """Let the candidate serve, unless it was rolled back while it loaded.

        Whoever holds what served before keeps it.
        """
        if (newer := self._taken_back()) is not None:
            return newer
        candidate = self._require_candidate()
        self.pool.serve(self._served(candidate))
        self._raise_handled(candidate.entry)
        self._candidate = None
        self._refused.clear()
        self._tries.clear()
        self._stages.doubts.clear()
        self._left = ""
        self.swap_seconds = time.monotonic() - self._found_at
        return rules.Passed()

    def refuse(self, refusal: rules.Refusal) -> rules.Event:
        """Write the refusal into the ledger and forget the candidate, if it is one that was refused."""
        if self._candidate is not None:
            self._set_aside(self._candidate)
            self._candidate = None
        self._refusals.record(
            gate=refusal.gate,
            reason=refusal.reason,
            remedy=refusal.remedy,
            consumer=self._consumer,
            channel=self._channel.name,
            version=refusal.target.version,
            generation=refusal.target.generation,
            blob_digest=refusal.target.digest,
        )
        return rules.Woke()

    def regression(self, generation: int, reason: str) -> rules.Regressed | None:
        """What to tell the rules where `generation` is to be left; None where that cannot be."""
        current, previous = self.pool.current, self.previous
        if current is None or previous is None or current.generation != generation:
            return None
        return rules.Regressed(_target(current), _target(previous), reason)

    def fall_back(self) -> rules.Event:
        """Let what served before serve again, as it did."""
        if (previous := self.pool.previous) is None:
            raise ValueError("nothing served before")
        began = time.monotonic()
        if self.pool.current is not None:
            self._left = self.pool.current.manifest.digest
        self.pool.serve(previous)
        self.swap_seconds = time.monotonic() - began
        return rules.FellBack()

    @property
    def previous(self) -> ServedModel | None:
        """What a fall-back leads to: what served before and is still warm, unless it was rolled back."""
        previous = self.pool.previous
        return None if previous is None or self._trusted.is_rolled_back(previous.entry) else previous

    @property
    def newest(self) -> ChannelEntry | None:
        """The newest entry of the channel that was seen and is trusted."""
        return self._trusted.newest

    @property
    def judged(self) -> rules.Target | None:
        """The version that is being taken through a stage, which may be the candidate's canary."""
        candidate = self._candidate
        if candidate is None:
            return None
        part, entry = candidate.under_way, candidate.entry
        return rules.Target(
            entry.generation, part.version, part.blob_digest, trusted=candidate.trusted, entry=entry.digest
        )

    @property
    def fresh_until(self) -> datetime | None:
        """Until when someone vouched for the channel's freshness; None where nobody limits it."""
        newest = self._trusted.newest
        return newest.expires_at if newest else None

    def drop_candidate(self) -> bool:
        """Forget what could not be had for now; False where there was nothing of the kind."""
        has_failed, self._candidate = self._candidate is not None, None
        return has_failed

    def is_overtaken(self) -> bool:
        """Returns whether something trusted is newer than what was known when the candidate was chosen.

        Raises:
            FerryError: the channel cannot be read.
        """
        news = self._trusted.news(self._handled)
        self.polled_at = utc_now()
        return news is not None and news.trusted and news.entry.generation > self._known

    def _behind(self, entry: ChannelEntry) -> Iterator[ChannelEntry]:
        with contextlib.suppress(RefusedError):  # where trust ends, there is nothing to go back to
            if entry.canary is not None:
                entry = self._before_canary(entry)
                yield entry
            for older in self._channel.undo_chain(entry):
                yield self._before_canary(older)

    def _before_canary(self, entry: ChannelEntry) -> ChannelEntry:
        # a trial of long ago is not begun again, and a refused canary must not cost the version beside it
        while entry.canary is not None:
            entry = self._channel.get(entry.generation - 1)
            self._channel.seal.require(entry)
        return entry

    def _consider(self, entry: ChannelEntry, *, trusted: bool = True) -> rules.Target:
        self._candidate = Candidate(
            entry, trusted=trusted, may_break_contract=lambda: self._may_break_contract(entry)
        )
        self._known = self.newest.generation if self.newest else 0
        self._found_at = time.monotonic()
        return rules.Target(
            entry.generation, entry.version, entry.blob_digest, trusted=trusted, entry=entry.digest
        )

    def _may_break_contract(self, entry: ChannelEntry) -> bool:
        current = self.pool.current
        return current is None or self._trusted.allows_change(current.entry, entry)

    def _taken_back(self) -> rules.Found | None:
        """Returns the entry to load instead of a candidate that was rolled back since it was chosen."""
        try:
            news = self._trusted.news(self._handled)
        except FerryError:
            return None  # the candidate was the newest a moment ago, and the next poll tells what is wrong
        if news is None or news.taken_back <= self._known:
            return None
        return rules.Found(self._consider(news.entry))

    def _set_aside(self, candidate: Candidate) -> None:
        self._refused.add(candidate.entry.digest)
        if candidate.trusted:
            self._raise_handled(candidate.entry)
        else:
            self._trusted.pass_over(candidate.entry)

    def _served(self, candidate: Candidate) -> ServedModel:
        served = self._serving(candidate.entry, candidate.stable)
        if candidate.canary is None or candidate.entry.canary is None:
            return served
        share = candidate.entry.canary
        split = CanarySplit(str(self._channel), share.version, share.percent)
        canary = Canary(self._serving(candidate.entry, candidate.canary), split)
        return replace(served, canary=canary)

    def _serving(self, entry: ChannelEntry, part: Part) -> ServedModel:
        session = part.require_session()
        since = next((kept.since for kept in self.pool.serving if kept.session is session), None)
        return ServedModel(part.require_manifest(), entry, session, since or utc_now())

    def _raise_handled(self, entry: ChannelEntry) -> None:
        if self._handled is None or entry.generation > self._handled.generation:
            self._handled = entry

    def _require_candidate(self) -> Candidate:
        if self._candidate is None:
            raise ValueError("there is no candidate")
        return self._candidate


def _target(served: ServedModel) -> rules.Target:
    return rules.Target(served.generation, served.version, served.digest, entry=served.entry.digest)
