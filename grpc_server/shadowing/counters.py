"""What is counted of shadows: plain integers, each written by one thread.

The event loop counts what is not run again, the worker all else; a scrape reads them from a third thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ferryline.grpc_server.shadowing.comparison import Distance, Failure, Labels

BOUNDS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.25, 0.5, 1.0, 10.0, 100.0)
"""Upper bounds of the histogram of differences; the last bucket has none."""


@dataclass(slots=True)
class OutputCounters:
    """What became of one output."""

    labels: int = 0
    agreed: int = 0
    distances: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Requests by their largest difference, for each bound those above the one before."""
    distance_sum: float = 0.0
    largest: float = 0.0
    largest_lately: float = 0.0
    """Since it was last told in the log."""

    def count(self, verdict: Labels | Distance) -> None:
        """Count one request."""
        if isinstance(verdict, Labels):
            self.labels += verdict.compared
            self.agreed += verdict.agreed
            return
        self.distances[bisect_left(BOUNDS, verdict.largest)] += 1
        self.distance_sum += verdict.largest
        self.largest = max(self.largest, verdict.largest)
        self.largest_lately = max(self.largest_lately, verdict.largest)


@dataclass(slots=True)
class PairCounters:
    """What became of the requests that one version answered and another ran again.

    Args:
        version: the one that answered.
        shadow_version: the other.
        broken: in which way the two do not take and give the same; None where they do.
        measured: the outputs that are compared by how far they are off.
    """

    version: int
    shadow_version: int
    broken: str | None = None
    measured: frozenset[str] = frozenset()

    compared: int = 0
    """Requests run again whose outputs were held against each other."""
    run_ns: int = 0
    """Processor time of the shadow's runs, in nanoseconds."""
    answer_ns: int = 0
    """What the runs took of which the answers came."""
    outputs: dict[str, OutputCounters] = field(default_factory=dict)
    failures: Counter[Failure] = field(default_factory=Counter)
    outdated: int = 0
    """Not run again, since the shadow's version was gone by then; counted by the worker."""
    crowded_out: int = 0
    """Not run again, since too many waited; counted by the event loop."""
    incomparable: int = 0
    """Not run again, since the contracts differ; counted by the event loop."""

    @property
    def dropped(self) -> int:
        """Requests that were drawn and not run again."""
        return self.crowded_out + self.outdated

    @property
    def failed(self) -> dict[Failure, int]:
        """Requests that could not be compared, or not in all outputs, by the reason."""
        found = dict(self.failures)
        return {**found, Failure.CONTRACT: self.incomparable} if self.incomparable else found

    def output(self, name: str) -> OutputCounters:
        """The counters of one output."""
        return self.outputs.setdefault(name, OutputCounters())


def cumulated(counts: Sequence[int]) -> list[int]:
    """How many are at or below each bound."""
    return [sum(counts[: at + 1]) for at in range(len(counts))]
