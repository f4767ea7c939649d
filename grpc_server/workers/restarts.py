"""When a dead worker is replaced, and when the server gives up."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_DEATHS = 5
"""With so many deaths within `SPAN` seconds something is wrong that no replacement mends."""
SPAN = 60.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0


@dataclass(frozen=True, slots=True)
class Deaths:
    """When workers died, by a clock of seconds that only rise."""

    moments: tuple[float, ...] = ()

    @property
    def too_many(self) -> bool:
        """Whether to give up."""
        return len(self.moments) >= MOST_DEATHS

    @property
    def pause(self) -> float:
        """Seconds until a replacement starts: none for the first death in a while, then longer each time."""
        earlier = len(self.moments) - 1
        return 0.0 if earlier <= 0 else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (earlier - 1))


def died(deaths: Deaths, now: float) -> Deaths:
    """A worker died just now; deaths of long ago count no more."""
    recent = tuple(moment for moment in deaths.moments if now - moment < SPAN)
    return replace(deaths, moments=(*recent, now))
