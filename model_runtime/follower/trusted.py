"""Reads a channel as a consumer may trust it: never behind its memory, and past what nobody vouches for.

An entry that is not trusted may lie in the log, for whoever can write to the store can put it there. It is
the candidate only where nothing trusted is newer than what was handled, so that it is refused where people
see it; none of its flags counts, it is not remembered, and the walk goes on past it. It is told from others
by its digest: where it is taken out, its number is free for an entry that is trusted.

What was read before a fault of the store is kept, so a consumer far behind arrives however often that fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ferryline.registry.channels import Channel
from ferryline.registry.documents import ChannelEntry, Operation
from ferryline.registry.errors import BrokenChainError
from ferryline.registry.ratchet import Mark, Ratchet

WHOLE_INTERVAL = 30.0
"""Seconds between two looks at the end of the log, beyond its next entry."""
FURTHEST_BACK = 64
"""How many entries a newcomer without a memory passes over to find one that it can trust."""


@dataclass(frozen=True, slots=True)
class News:
    """What is new on a channel.

    Attributes:
        entry: the newest entry that is trusted; where none is, the newest.
        trusted: whether somebody trusted vouches for `entry`.
        chosen: whether one of the new ones puts its version to serve; others name only what serves already.
        taken_back: the generation of the newest rollback among the new ones, 0 where there is none.
    """

    entry: ChannelEntry
    trusted: bool = True
    chosen: bool = True
    taken_back: int = 0


@dataclass(frozen=True, slots=True)
class _Seen:
    entry: ChannelEntry
    chooses: bool


class TrustedChannel:
    """A channel as one consumer sees it.

    Args:
        channel: the channel; its seal says what is trusted.
        ratchet: remembers the highest generation across restarts; None forgets it.
        whole_interval: seconds between two looks beyond the next entry, which a log that was cut or has a
            hole never gets.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        channel: Channel,
        ratchet: Ratchet | None = None,
        *,
        whole_interval: float = WHOLE_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._ratchet = ratchet
        self._whole_interval = whole_interval
        self._clock = clock
        self._look_again = clock() + whole_interval
        self.newest: ChannelEntry | None = None
        """The newest trusted entry that was seen."""
        self._unhandled: list[_Seen] = []
        """Trusted entries beyond what was handled, oldest first."""
        self._handled: ChannelEntry | None = None
        self._passed_over: set[str] = set()
        """Digests of entries that are not trusted and were refused."""
        self._barren_head: ChannelEntry | None = None
        """The newest entry of a log in which nothing was found that is trusted."""
        self._barren_until = 0.0
        self._rolled_back: set[str] = set()
        """Digests of manifests that a rollback led away from, and that nobody chose again."""

    def news(self, handled: ChannelEntry | None) -> News | None:
        """Returns what is new since `handled`, None where nothing is.

        One read where nothing is new, now and then three.

        Args:
            handled: what was served or refused last; None for nothing. An entry that is not trusted is passed
                over from now on.

        Raises:
            BrokenChainError: the log was cut, replaced or altered.
            StoreError: the store does not answer; what was read so far is kept for the next call.
            UsageError: the ratchet's file cannot be used.
        """
        self._forget(handled)
        untrusted = self._take(self._unseen())
        if self._unhandled:
            newest = self._unhandled[-1].entry
            if self._ratchet is not None:
                self._ratchet.advance(newest)
            return News(newest, chosen=self._chosen(), taken_back=self._taken_back())
        if untrusted is not None and untrusted.digest not in self._passed_over:
            return News(untrusted, trusted=False)
        self._require_whole()
        return None

    def allows_change(self, serving: ChannelEntry, candidate: ChannelEntry) -> bool:
        """Returns whether someone trusted allowed another contract after `serving`, up to `candidate`.

        It is read from the log whenever it is asked for, so it holds whichever way a consumer came to serve
        what it serves.

        Raises:
            BrokenChainError: the log between them was altered.
            StoreError: the store does not answer.
        """
        return any(
            entry.contract_change and self._channel.seal.admits(entry)
            for entry in self._channel.between(serving, candidate)
        )

    def is_rolled_back(self, entry: ChannelEntry) -> bool:
        """Returns whether a rollback that was seen led away from what `entry` puts to serve.

        It is kept in memory, for a consumer goes back to what served before while the store is down, too.
        """
        return entry.manifest_digest in self._rolled_back

    def pass_over(self, entry: ChannelEntry) -> None:
        """Names `entry`, which is not trusted, no more."""
        self._passed_over.add(entry.digest)

    def _forget(self, handled: ChannelEntry | None) -> None:
        if handled is None or handled is self._handled:
            return
        self._handled = handled
        if not self._channel.seal.admits(handled):
            self.pass_over(handled)
            return
        self._unhandled = [seen for seen in self._unhandled if seen.entry.generation > handled.generation]
        if self.newest is None:
            self.newest = handled

    def _take(self, entries: Iterable[ChannelEntry]) -> ChannelEntry | None:
        """Takes in what is trusted as it is read; returns the newest entry if it is not trusted."""
        untrusted: ChannelEntry | None = None
        for entry in entries:
            if self._channel.seal.admits(entry):
                self._unhandled.append(self._seen(entry))
                self.newest, untrusted, self._barren_head = entry, None, None
            else:
                untrusted = entry
        if self.newest is None and untrusted is not None:
            if self._barren_head is None:
                self._barren_until = self._clock() + self._whole_interval
            self._barren_head = untrusted
        return untrusted or (self._barren_head if self.newest is None else None)

    def _seen(self, entry: ChannelEntry) -> _Seen:
        before, chooses = self.newest, _chooses(entry, self.newest)
        if chooses:
            if before is not None and entry.operation is Operation.ROLLBACK:
                self._rolled_back.add(before.manifest_digest)
            self._rolled_back.discard(entry.manifest_digest)
        return _Seen(entry, chooses)

    def _unseen(self) -> Iterable[ChannelEntry]:
        if self.newest is not None:
            # what is not trusted may be taken out of the log again: the walk starts where trust ended
            return self._channel.walk(self.newest)
        if self._barren_head is not None and self._clock() < self._barren_until:
            return self._channel.walk(self._barren_head)
        self._barren_head = None
        return self._from_the_start()

    def _from_the_start(self) -> Iterable[ChannelEntry]:
        mark = self._ratchet.mark() if self._ratchet else None  # first: the channel may move on meanwhile
        head = self._channel.head()
        if self._ratchet is not None:
            self._ratchet.require(mark, head, lambda generation: self._channel.get(generation).digest)
        if head is None:
            return []
        return [head] if self._channel.seal.admits(head) else self._before(head, mark)

    def _before(self, head: ChannelEntry, mark: Mark | None) -> Iterator[ChannelEntry]:
        """Yields what leads up to a head that is not trusted, and that."""
        try:
            yield from self._walk_back(head) if mark is None else self._walk_on(mark)
        except BrokenChainError as error:
            raise BrokenChainError(
                f"nobody trusted vouches for generation {head.generation} of {self._channel}, the newest, "
                f"and what leads up to it cannot be read ({error}); remove that entry if nobody you "
                "know wrote it"
            ) from error

    def _walk_on(self, mark: Mark) -> Iterator[ChannelEntry]:
        known = self._channel.get(mark.generation)
        yield known
        yield from self._channel.walk(known)

    def _walk_back(self, head: ChannelEntry) -> list[ChannelEntry]:
        seen = [head]
        while len(seen) < FURTHEST_BACK and seen[-1].generation > 1:
            seen.append(self._channel.get(seen[-1].generation - 1))
            if self._channel.seal.admits(seen[-1]):
                break
        return seen[::-1]

    def _chosen(self) -> bool:
        return any(seen.chooses for seen in self._unhandled)

    def _taken_back(self) -> int:
        rollbacks = (seen.entry for seen in self._unhandled if seen.entry.operation is Operation.ROLLBACK)
        return max((entry.generation for entry in rollbacks), default=0)

    def _require_whole(self) -> None:
        if self.newest is None or self._clock() < self._look_again:
            return
        self._channel.require_tip(self.newest)
        # only now: what was found broken is looked at again at every poll
        self._look_again = self._clock() + self._whole_interval


def _chooses(entry: ChannelEntry, before: ChannelEntry | None) -> bool:
    """Returns whether `entry` puts its version to serve, rather than name the one that serves already."""
    if before is None or entry.manifest_digest != before.manifest_digest:
        return True
    match entry.operation:
        case Operation.PROMOTE:
            return entry.canary is None  # a canary begins beside what serves
        case Operation.ROLLBACK:
            return before.canary is None  # else it takes back the canary and nothing else
        case Operation.HOLD | Operation.RELEASE:
            return False
