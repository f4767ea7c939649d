"""What one attempt of a job knows of one partition, and what it may do there.

The log of a partition says: from this offset on, that generation. A later entry overrides the earlier ones
from its offset on. Three rules make every offset be scored by one generation, however often it is replayed:

1. An attempt begins with an entry of its own. It has a number in the log, so an attempt that was given up and
   still runs can write no more: its next number is taken.
2. Nothing is scored beyond what was reserved. So the next attempt knows what may have been scored already,
   and lets another generation begin only behind that.
3. A switch lies behind what was scored, and nothing at or behind it is scored before it is known to be
   written: whoever is restored may read it.

The third rule holds records back for the time of a write, once for each swap. Where that takes too long,
because the store went away in that moment, the switch is given up: the old generation goes on, and as soon as
the store answers a correction says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Assigned:
    """What scores: one generation of a channel.

    Attributes:
        channel: as `model:channel`.
        generation: of that channel.
        version: of the model.
        digest: of the version's file.
    """

    channel: str
    generation: int
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Entry `number` of a partition's log: from `offset` on, `by` scores."""

    number: int
    offset: int
    by: Assigned


class Span(NamedTuple):
    """The offsets from `start` up to, and without, `stop`."""

    start: int
    stop: int
    by: Assigned


class _From(NamedTuple):
    offset: int
    by: Assigned


@dataclass(slots=True)
class _Pending:
    switch: Switch
    instead: tuple[_From, ...] | None = None
    """What holds from its offset on, because records behind it were scored as if it were not there."""


def in_force(written: Sequence[Switch]) -> tuple[Switch, ...]:
    """What holds, in ascending order of offsets, of entries in the order of the log."""
    held: tuple[Switch, ...] = ()
    for switch in written:
        held = (*(each for each in held if each.offset < switch.offset), switch)
    return held


def take_over(written: Sequence[Switch], *, floor: int, first: int, by: Assigned) -> Switch:
    """The entry that an attempt begins with.

    Args:
        written: the newest entries of the log, in its order; none for a partition without a log.
        floor: no earlier attempt scored an offset that is as high.
        first: the first offset that this attempt sees.
        by: what serves now.
    """
    number = written[-1].number + 1 if written else 1
    return Switch(number, max(floor, first), by)


class Timeline:
    """One partition, as the attempt that took it over sees it.

    Args:
        written: entries in the order of the log, the last being this attempt's own first; those that decide
            about offsets from `first` on.
        first: the first offset that this attempt sees.
        floor: no earlier attempt scored an offset that is as high.

    Attributes:
        reached: every offset that was scored here is lower.
        reserved: a record of this offset or a higher one waits until more is reserved.
        superseded: another attempt took over; this one's output does not count, and it writes no more.
    """

    def __init__(self, written: Sequence[Switch], *, first: int, floor: int) -> None:
        self._held = in_force(written)
        self._number = written[-1].number
        self._pending: _Pending | None = None
        self._floor = floor
        self._asked = first
        self.reached = first
        self.reserved = first
        self.superseded = False

    @property
    def newest(self) -> Assigned:
        """What scores behind the last switch that is known to be written."""
        return self._held[-1].by

    @property
    def number(self) -> int:
        """The number of the newest entry that is known to be written."""
        return self._number

    @property
    def needed(self) -> set[Assigned]:
        """All that may score from here on."""
        pending = self._pending
        return {each.by for each in self._held} | ({pending.switch.by} if pending else set())

    @property
    def safe_floor(self) -> int:
        """No attempt scored an offset that is as high, this one included."""
        return max(self._floor, self.reached)

    # --- scoring ----------------------------------------------------------------------------------

    def must_wait(self, last: int) -> bool:
        """Whether records up to offset `last` cannot be scored yet."""
        self._asked = max(self._asked, last + 1)
        if self.superseded:
            return False
        return last >= self.reserved or self._is_undecided(last)

    def give_up(self, last: int) -> bool:
        """Score up to offset `last` nevertheless; whether that goes beyond what was reserved."""
        if self._pending is not None and self._is_undecided(last):
            self._pending.instead = self._held_from(self._pending.switch.offset)
        return last >= self.reserved

    def score(self, first: int, last: int) -> list[Span]:
        """What scores the offsets from `first` to `last`, which are now taken for scored."""
        spans = list(self._spans(first, last + 1))
        self.reached = max(self.reached, last + 1)
        while len(self._held) > 1 and self._held[1].offset <= self.reached:
            self._held = self._held[1:]
        return spans

    def _is_undecided(self, last: int) -> bool:
        pending = self._pending
        return pending is not None and pending.instead is None and pending.switch.offset <= last

    def _spans(self, start: int, stop: int) -> Iterator[Span]:
        begin = start
        for current, following in zip(self._held, self._held[1:], strict=False):
            end = min(stop, following.offset)
            if begin < end:
                yield Span(begin, end, current.by)
                begin = end
        if begin < stop:
            yield Span(begin, stop, self.newest)

    # --- writing ahead ----------------------------------------------------------------------------

    def propose(self, by: Assigned) -> Switch | None:
        """The entry to write so that `by`, which serves now, scores next; None where there is none."""
        if self.superseded:
            self._held = (Switch(self._number, self.reached, by),)  # whatever it is, it is written nowhere
            return None
        if self._pending is not None:
            return self._pending.switch
        if self.newest == by:
            return None
        self._pending = _Pending(Switch(self._number + 1, self.safe_floor, by))
        return self._pending.switch

    def confirm(self) -> None:
        """The entry on its way is written."""
        pending = self._pending
        if pending is None:
            raise ValueError("no entry is on its way")
        switch = pending.switch
        self._number, self._pending = switch.number, None
        if pending.instead is None:
            self._held = in_force([*self._held, switch])
        elif pending.instead:
            # records behind it were scored by what held before, and whoever is restored must know
            first, *rest = pending.instead
            self._pending = _Pending(Switch(switch.number + 1, *first), tuple(rest))

    def supersede(self) -> None:
        """Another attempt took over."""
        self.superseded, self._pending = True, None

    def _held_from(self, offset: int) -> tuple[_From, ...]:
        now = next(self._spans(offset, offset + 1)).by
        later = (_From(each.offset, each.by) for each in self._held if each.offset > offset)
        return (_From(offset, now), *later)

    # --- reserving --------------------------------------------------------------------------------

    def shall_reserve(self, room: int) -> int | None:
        """Up to where to reserve, where that is to be changed.

        Args:
            room: so many offsets beyond what was scored.
        """
        wanted = max(
            self.reached, self._asked
        )  # offsets have gaps, so a batch may lead further than its size
        if room // 2 < self.reserved - wanted <= 4 * room:
            return None
        return wanted + room

    def reserve(self, until: int) -> None:
        """So far is reserved: less at once, more as soon as it is written."""
        self.reserved = max(until, self.reached)
