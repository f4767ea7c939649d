"""One channel of a model: the log that says which version serves."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from ferryline.registry import keys, rules
from ferryline.registry.contract import contract_break
from ferryline.registry.documents import Canary, ChannelEntry, Manifest, Operation, utc_now
from ferryline.registry.errors import (
    BrokenChainError,
    NotFoundError,
    RefusedError,
    StoreUnreachableError,
    UntrustedAnswerError,
)
from ferryline.registry.hints import Hints
from ferryline.registry.log import AppendLog
from ferryline.registry.log_walk import Walk
from ferryline.registry.names import require_name
from ferryline.registry.rules import Change, Decision
from ferryline.registry.signing.seal import UNSEALED, Seal
from ferryline.registry.stores.base import Store
from ferryline.registry.versions import Versions

UNDO_REACH = 32
"""So many steps back a rollback to a named version looks for where that version served before.

From one further back, or beyond an entry that cannot be read, one goes back again only by naming a version.
"""


class Channel:
    """The channel `name` of `model` in `store`."""

    def __init__(
        self,
        store: Store,
        model: str,
        name: str,
        *,
        clock: Callable[[], datetime] = utc_now,
        seal: Seal = UNSEALED,
    ) -> None:
        self.model = require_name(model, what="model")
        self.name = require_name(name, what="channel")
        self._log = AppendLog(store, keys.channel(model, name))
        self._hints = Hints(store)
        self._clock = clock
        self.seal = seal

    def __str__(self) -> str:
        return f"{self.model}:{self.name}"

    # --- reading ----------------------------------------------------------------------------------

    def head(self) -> ChannelEntry | None:
        """The newest entry, None while nothing was ever promoted."""
        newest = self._log.newest(at_least=self._hints.generation(self.model, self.name))
        return None if newest is None else self._decode(*newest)

    def require_head(self) -> ChannelEntry:
        """The newest entry.

        Raises:
            NotFoundError: nothing was ever promoted here.
        """
        head = self.head()
        if head is None:
            raise NotFoundError(f"{self} has no entry yet; promote a version first")
        return head

    def get(self, generation: int) -> ChannelEntry:
        """The entry of `generation`.

        Raises:
            BrokenChainError: it is missing, or another entry lies in its place.
        """
        return self._decode(generation, self._log.require(generation))

    def newest(self, limit: int) -> list[ChannelEntry]:
        """The newest `limit` entries, oldest first, each checked to follow from the one before.

        Raises:
            BrokenChainError: one is missing or does not name the one before it.
        """
        head = self.head()
        if head is None:
            return []
        return list(self._chain(max(1, head.generation - limit + 1), head.generation))

    def history(self) -> Iterator[ChannelEntry]:
        """Every entry, oldest first, each checked to follow from the one before.

        Raises:
            BrokenChainError: one is missing or does not name the one before it.
        """
        head = self.head()
        if head is not None:
            yield from self._chain(1, head.generation)

    def written_at(self, entry: ChannelEntry) -> datetime:
        """When an entry of this log was written, by the store's own clock.

        Raises:
            UntrustedAnswerError: the store does not list it.
        """
        return self._log.written_at(entry.generation)

    def undo_chain(self, entry: ChannelEntry) -> Iterator[ChannelEntry]:
        """The entries that one could go back to from `entry`, nearest first; each names another version.

        Raises:
            BrokenChainError: an entry leads forwards, or one is missing.
            RefusedError: nobody trusted vouches for one (gate `signature`).
        """
        while (generation := entry.undoes_to) is not None:
            if generation >= entry.generation:
                raise BrokenChainError(
                    f"generation {entry.generation} of {self} says that undoing it leads to {generation}, "
                    "which is no older one: the entry was not written by this program"
                )
            entry = self.get(generation)
            # no chain of digests leads here from the head: each entry must be trusted by itself
            self._require_trusted(entry, "name a version that you trust with --to VERSION")
            yield entry

    def rollback_version(self, head: ChannelEntry) -> int:
        """The version that a rollback of `head` leads to: the present one where that ends a canary.

        Raises:
            NotFoundError: no other version ever served here.
        """
        if head.canary is not None:
            return head.version
        before = next(self.undo_chain(head), None)
        if before is None:
            raise NotFoundError(
                f"nothing served {self} before version {head.version} that one could go back to; "
                "name a version with --to VERSION"
            )
        return before.version

    def newer_than(self, entry: ChannelEntry) -> list[ChannelEntry]:
        """Returns the entries beyond `entry`, oldest first, none where nothing is new; see `walk`."""
        return list(self.walk(entry))

    def walk(self, entry: ChannelEntry) -> Iterator[ChannelEntry]:
        """Yields the entries beyond `entry`, oldest first; the poll of a follower.

        One read where nothing is new; else one for each generation, and two more. An entry is yielded once
        the next one names its digest, or a second read shows the same bytes, so whoever keeps what came
        before a fault can go on from there. A read that fails after another succeeded is tried again once.

        Raises:
            BrokenChainError: an entry does not name the one before it.
            StoreError: the store does not answer.
        """
        return Walk(self._log, self._decode, self._require_link).beyond(entry)

    def between(self, older: ChannelEntry, newer: ChannelEntry) -> Iterator[ChannelEntry]:
        """Yields the entries after `older` up to `newer`, both included in the check that each follows.

        Raises:
            BrokenChainError: one is missing, or does not name the one before it.
        """
        previous = older
        for entry in self._chain(older.generation + 1, newer.generation):
            self._require_link(previous, entry)
            yield entry
            previous = entry
        if previous.digest != newer.digest:
            raise self._replaced(newer)

    def require_tip(self, entry: ChannelEntry) -> None:
        """Make sure that the log still leads up to `entry`, and goes on from there without a gap.

        Raises:
            BrokenChainError: the entry is gone or another one lies in its place, or the next one is missing.
        """
        if self.get(entry.generation).digest != entry.digest:
            raise self._replaced(entry)
        following = next(iter(self._log.numbers(after=entry.generation)), None)
        if following is not None and following != entry.generation + 1:
            raise BrokenChainError(
                f"generation {entry.generation + 1} of {self} is missing, and {following} is there; "
                "restore it from a backup"
            )

    def _chain(self, first: int, last: int) -> Iterator[ChannelEntry]:
        numbers = range(first, last + 1)
        previous: ChannelEntry | None = None
        for number, data in zip(numbers, self._log.require_many(numbers), strict=True):
            entry = self._decode(number, data)
            if previous is not None or number == 1:
                self._require_link(previous, entry)
            yield entry
            previous = entry

    # --- writing ----------------------------------------------------------------------------------

    def draft(
        self,
        change: Change,
        versions: Versions,
        *,
        actor: str,
        reason: str = "",
        head: ChannelEntry | None,
    ) -> ChannelEntry:
        """The next entry after `head`, not written yet.

        Args:
            change: what is wanted.
            versions: the model's versions.
            actor: who wants it.
            reason: why, for the history.
            head: the channel's newest entry as the caller saw it.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: the channel is not at `change.expect`.
            ChannelHeldError: the channel is held, or a canary runs.
            RefusedError: the version's contract is another, and `change` does not allow that (gate
                `contract`); its file is gone (gate `blob`); or nobody trusted vouches for the version or,
                unless forced, for `head`, or would for the new entry (gate `signature`).
        """
        if head is not None and not change.force:
            self._require_trusted(
                head, f"put a signed entry over it: ferry promote {self.model}@VERSION --force"
            )
        decision = rules.decide(head, change, channel=str(self))
        named = self._named(change, decision, head, versions)
        if head is not None and not change.contract_change:
            self._require_contract(head.version, named, versions)
        now = self._clock()
        entry = ChannelEntry(
            model=self.model,
            channel=self.name,
            generation=decision.generation,
            version=decision.version,
            blob_digest=named.blob_digest,
            manifest_digest=named.manifest_digest,
            operation=change.operation,
            held=decision.held,
            automatic=change.automatic,
            contract_change=change.contract_change,
            actor=actor,
            reason=reason,
            at=now,
            op_id=uuid.uuid4().hex,
            previous=head.digest if head else None,
            undoes_to=self._undo_generation(head, change, decision),
            canary=named.canary,
            expires_at=self.seal.expiry(now),
        )
        return self.seal.sign(entry)

    def append(self, entry: ChannelEntry) -> ChannelEntry:
        """Write an entry that was drafted; on return it is there for good.

        Raises:
            ConflictError: the channel moved on meanwhile.
            OutcomeUnknownError: the store gave no answer.
        """
        self._log.append(entry.generation, entry.encode())
        self._hints.tell_generation(self.model, self.name, entry.generation)
        return entry

    def _undo_generation(self, head: ChannelEntry | None, change: Change, decision: Decision) -> int | None:
        if head is None or change.operation is not Operation.ROLLBACK or decision.version == head.version:
            return rules.undo_generation(head, decision, None)
        chain = self.undo_chain(head)
        try:
            restored = rules.restored_entry(itertools.islice(chain, UNDO_REACH), decision.version)
            if restored is None and next(chain, None) is not None:
                return None
        except (RefusedError, UntrustedAnswerError):
            # the version to go back to was named; what cannot be read or trusted must not stand in the way
            return None
        return rules.undo_generation(head, decision, restored)

    def _named(
        self, change: Change, decision: Decision, head: ChannelEntry | None, versions: Versions
    ) -> _Named:
        """What the decision names; what goes on serving is taken from `head`, file or no file."""
        new: list[Manifest] = []

        def require(version: int) -> Manifest:
            new.append(versions.require_servable(version))
            return new[-1]

        canary = head.canary if head is not None and decision.canary is not None else None
        if decision.canary is not None and decision.canary != rules.running_canary(head):
            canary = _canary(require(decision.canary.version), decision.canary.percent)
        if head is not None and decision.version == head.version and not change.replaces_all:
            return _Named(head.blob_digest, head.manifest_digest, canary, new)
        manifest = require(decision.version)
        return _Named(manifest.blob.digest, manifest.digest, canary, new)

    def _require_contract(self, serving: int, named: _Named, versions: Versions) -> None:
        # what cannot be read cannot be served either; it must not stand in the way of its successor
        if not named.new or (incumbent := self._incumbent(serving, versions)) is None:
            return
        for candidate in named.new:
            if fault := contract_break(incumbent, candidate):
                raise RefusedError(
                    "contract",
                    f"version {candidate.version} cannot take the place of {incumbent.version} on {self}: "
                    f"{fault}",
                    "If every caller is ready for it, promote with --allow-contract-change",
                )

    def _incumbent(self, version: int, versions: Versions) -> Manifest | None:
        """Returns the manifest of what serves, None where it is damaged or gone for good.

        Raises:
            StoreUnreachableError: the store lists the manifest and does not show it.
        """
        # of a fault of the moment it may come damaged, or not at all
        with contextlib.suppress(UntrustedAnswerError, NotFoundError):
            return versions.get(version)
        try:
            return versions.get(version)
        except UntrustedAnswerError:
            return None
        except NotFoundError as error:
            if version in versions.numbers(after=version - 1):
                raise StoreUnreachableError(
                    f"the store lists {self.model}@{version}, which serves {self}, and does not show it; "
                    "try again"
                ) from error
            return None

    # --- checking ---------------------------------------------------------------------------------

    def _decode(self, number: int, data: bytes) -> ChannelEntry:
        key = self._log.key(number)
        entry = ChannelEntry.decode(data, key=key)
        if (entry.model, entry.channel, entry.generation) != (self.model, self.name, number):
            raise BrokenChainError(
                f"{key} describes generation {entry.generation} of {entry.model}:{entry.channel}; "
                "it lies in a wrong place"
            )
        return entry

    def _replaced(self, entry: ChannelEntry) -> BrokenChainError:
        return BrokenChainError(
            f"generation {entry.generation} of {self} is another one than was read before: the log was "
            "replaced. Restore it from a backup; a consumer that is to follow it as it is now must be "
            "started anew"
        )

    def _require_trusted(self, entry: ChannelEntry, way_out: str) -> None:
        try:
            self.seal.require(entry)
        except RefusedError as error:
            raise RefusedError(error.gate, error.reason, f"Find out who wrote it; then {way_out}") from error

    def _require_link(self, previous: ChannelEntry | None, entry: ChannelEntry) -> None:
        expected = previous.digest if previous else None
        if entry.previous != expected:
            raise BrokenChainError(
                f"generation {entry.generation} of {self} does not follow from generation "
                f"{entry.generation - 1}: the log was altered or replaced. Restore it from a backup; "
                "a consumer that is to follow the log as it is now must be started anew"
            )


@dataclass(frozen=True, slots=True)
class _Named:
    """What an entry names, and the manifests of it that did not serve before."""

    blob_digest: str
    manifest_digest: str
    canary: Canary | None
    new: list[Manifest]


def _canary(manifest: Manifest, percent: float) -> Canary:
    return Canary(
        version=manifest.version,
        blob_digest=manifest.blob.digest,
        manifest_digest=manifest.digest,
        percent=percent,
    )
