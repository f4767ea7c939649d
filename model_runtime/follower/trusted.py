"""Reads a channel as a consumer may trust it: never behind its memory, and past what nobody vouches for.

An entry that is not trusted may lie in the log, for whoever can write to the store can put it there. It is
the candidate only where nothing trusted is newer than what was handled, so that it is refused where people
see it; none of its flags counts, it is not remembered, and the walk goes on past it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ferryline.registry.channels import Channel
from ferryline.registry.documents import ChannelEntry, Operation
from ferryline.registry.errors import BrokenChainError
from ferryline.registry.ratchet import Mark, Ratchet

WHOLE_INTERVAL = 30.0
"""Seconds between two looks at the end of the log, beyond its next entry."""
FURTHEST_BACK = 64
"""How many entries a newcomer without a memory passes over to find one that it can trust."""

_CHOOSE_NOTHING = (Operation.HOLD, Operation.RELEASE)


@dataclass(frozen=True, slots=True)
class News:
    """What is new on a channel.

    Attributes:
        entry: the newest entry that is trusted; where none is, the newest.
        contract_change: whether a trusted entry among the new ones allows another contract.
        chosen: whether somebody chose a version by one of the new ones; a hold and a release name it only.
    """

    entry: ChannelEntry
    contract_change: bool
    chosen: bool = True


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

    def news(self, handled: ChannelEntry | None) -> News | None:
        """What is new since `handled`, None where nothing is; one read where nothing is, now and then three.

        Raises:
            BrokenChainError: the log was cut, replaced or altered.
            UsageError: the ratchet's file cannot be used.
        """
        unseen = self._unseen(handled)
        if not unseen:
            self._require_whole(handled)
            return None
        trusted = [entry for entry in unseen if self._channel.seal.admits(entry)]
        if not trusted:
            return News(unseen[-1], contract_change=False)
        if self._ratchet is not None:
            self._ratchet.advance(trusted[-1])
        self.newest = trusted[-1]
        chosen = any(entry.operation not in _CHOOSE_NOTHING for entry in trusted)
        return News(trusted[-1], any(entry.contract_change for entry in trusted), chosen)

    def _require_whole(self, handled: ChannelEntry | None) -> None:
        tip = self.newest or handled  # what was refused may be taken out of the log again
        if tip is None or self._clock() < self._look_again:
            return
        self._channel.require_tip(tip)
        # only now: what was found broken is looked at again at every poll
        self._look_again = self._clock() + self._whole_interval

    def _unseen(self, handled: ChannelEntry | None) -> Sequence[ChannelEntry]:
        if handled is None:
            return self._from_the_start()
        if self.newest is None or handled.generation <= self.newest.generation:
            return self._channel.newer_than(handled)
        # what was refused may be taken out of the log again: the walk starts where trust ended
        newer = self._channel.newer_than(self.newest)
        return [entry for entry in newer if entry.generation > handled.generation]

    def _from_the_start(self) -> Sequence[ChannelEntry]:
        mark = self._ratchet.mark() if self._ratchet else None  # first: the channel may move on meanwhile
        head = self._channel.head()
        if self._ratchet is not None:
            self._ratchet.require(mark, head, lambda generation: self._channel.get(generation).digest)
        if head is None:
            return []
        return [head] if self._channel.seal.admits(head) else self._before(head, mark)

    def _before(self, head: ChannelEntry, mark: Mark | None) -> Sequence[ChannelEntry]:
        """What leads up to a head that is not trusted."""
        try:
            return self._walk_back(head) if mark is None else self._walk_on(mark)
        except BrokenChainError as error:
            raise BrokenChainError(
                f"nobody trusted vouches for generation {head.generation} of {self._channel}, the newest, "
                f"and what leads up to it cannot be read ({error}); remove that entry if nobody you "
                "know wrote it"
            ) from error

    def _walk_on(self, mark: Mark) -> list[ChannelEntry]:
        known = self._channel.get(mark.generation)
        return [known, *self._channel.newer_than(known)]

    def _walk_back(self, head: ChannelEntry) -> list[ChannelEntry]:
        seen = [head]
        while len(seen) < FURTHEST_BACK and seen[-1].generation > 1:
            seen.append(self._channel.get(seen[-1].generation - 1))
            if self._channel.seal.admits(seen[-1]):
                break
        return seen[::-1]
