"""One channel of a model: the log that says which version serves."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime

from registry import keys, rules
from registry.contract import contract_break
from registry.documents import ChannelEntry, Manifest, utc_now
from registry.errors import BrokenChainError, NotFoundError, RefusedError, UntrustedAnswerError
from registry.log import AppendLog
from registry.names import require_name
from registry.rules import Change
from registry.stores.base import Store


class Channel:
    """The channel `name` of `model` in `store`."""

    def __init__(
        self, store: Store, model: str, name: str, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.model = require_name(model, what="model")
        self.name = require_name(name, what="channel")
        self._log = AppendLog(store, keys.channel(model, name))
        self._clock = clock

    def __str__(self) -> str:
        return f"{self.model}:{self.name}"

    def head(self) -> ChannelEntry | None:
        """The newest entry, None while nothing was ever promoted."""
        number = self._log.head()
        return self._decode(number, self._log.require(number)) if number else None

    def require_head(self) -> ChannelEntry:
        """The newest entry.

        Raises:
            NotFoundError: nothing was ever promoted here.
        """
        head = self.head()
        if head is None:
            raise NotFoundError(f"{self} has no entry yet; promote a version first")
        return head

    def history(self) -> Iterator[ChannelEntry]:
        """Every entry, oldest first, each checked to follow from the one before.

        Raises:
            BrokenChainError: one is missing or does not name the one before it.
        """
        previous: ChannelEntry | None = None
        for number in range(1, self._log.head() + 1):
            entry = self._decode(number, self._log.require(number))
            self._require_link(previous, entry)
            yield entry
            previous = entry

    def newer_than(self, entry: ChannelEntry) -> list[ChannelEntry]:
        """The entries beyond `entry`, oldest first, none where nothing is new; the poll of a follower.

        One read where nothing is new; one more for every generation behind, each link checked.

        Raises:
            BrokenChainError: an entry does not name the one before it.
        """
        newer, newest = [], entry
        while (data := self._log.read(newest.generation + 1)) is not None:
            following = self._decode(newest.generation + 1, data)
            self._require_link(newest, following)
            newer.append(following)
            newest = following
        return newer

    def append(
        self,
        change: Change,
        load: Callable[[int], Manifest],
        *,
        actor: str,
        reason: str = "",
        head: ChannelEntry | None,
    ) -> ChannelEntry:
        """Write the next entry after `head`.

        Args:
            change: what is wanted.
            load: gives the manifest of a version.
            actor: who wants it.
            reason: why, for the history.
            head: the channel's newest entry as the caller saw it.

        Raises:
            ConflictError: the channel moved on meanwhile, or is not at `change.expect`.
            ChannelHeldError: the channel is held.
            RefusedError: the version's contract is another, and `change` does not allow that.
            OutcomeUnknownError: the store gave no answer.
        """
        decision = rules.decide(head, change, channel=str(self))
        manifest = load(decision.version)
        if head is not None and head.version != manifest.version and not change.contract_change:
            self._require_contract(head.version, manifest, load)
        entry = ChannelEntry(
            model=self.model,
            channel=self.name,
            generation=decision.generation,
            version=decision.version,
            blob_digest=manifest.blob.digest,
            manifest_digest=manifest.digest,
            operation=change.operation,
            held=decision.held,
            automatic=change.automatic,
            contract_change=change.contract_change,
            actor=actor,
            reason=reason,
            at=self._clock(),
            op_id=uuid.uuid4().hex,
            previous=head.digest if head else None,
        )
        self._log.append(entry.generation, entry.encode())
        return entry

    def _require_contract(self, serving: int, candidate: Manifest, load: Callable[[int], Manifest]) -> None:
        try:
            incumbent = load(serving)
        except (UntrustedAnswerError, NotFoundError):
            # what cannot be read cannot be served either; it must not stand in the way of its successor
            return
        if fault := contract_break(incumbent, candidate):
            raise RefusedError(
                "contract",
                f"version {candidate.version} cannot take the place of {incumbent.version} on {self}: "
                f"{fault}",
                "If every caller is ready for it, promote with --allow-contract-change",
            )

    def _decode(self, number: int, data: bytes) -> ChannelEntry:
        key = self._log.key(number)
        entry = ChannelEntry.decode(data, key=key)
        if (entry.model, entry.channel, entry.generation) != (self.model, self.name, number):
            raise BrokenChainError(
                f"{key} describes generation {entry.generation} of {entry.model}:{entry.channel}; "
                "it lies in a wrong place"
            )
        return entry

    def _require_link(self, previous: ChannelEntry | None, entry: ChannelEntry) -> None:
        expected = previous.digest if previous else None
        if entry.previous != expected:
            raise BrokenChainError(
                f"generation {entry.generation} of {self} does not follow from generation "
                f"{entry.generation - 1}: the log was altered or replaced. Restore it from a backup; "
                "a consumer that is to follow the log as it is now must be started anew"
            )
