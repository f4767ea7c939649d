"""What the server counts while it serves: plain integers, because a request pays for every one of them.

Requests are counted on the event loop alone, what followers do on each follower's own thread; a scrape reads
them from a third thread and may see a request half counted, which the next scrape sets right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

# a model that learns all day makes thousands of versions; each would be a time series for ever
KEPT_VERSIONS = 16


@dataclass(slots=True)
class VersionCounters:
    """Requests to one version of a model, and nanoseconds spent on those that succeeded."""

    success: int = 0
    failure: int = 0
    rows: int = 0
    runs: int = 0
    pending: int = 0
    """Requests that wait for a run right now."""
    overloaded: int = 0
    expired: int = 0
    cancelled: int = 0
    faults: int = 0
    """Requests that fit the contract and on which the model could not be run."""
    total_ns: int = 0
    input_ns: int = 0
    run_ns: int = 0
    output_ns: int = 0
    failure_ns: int = 0
    last_ns: int = 0
    """When the last request was answered, by the clock of `perf_counter_ns`; 0 for never."""

    def answered(self, rows: int, began: int, decoded: int, started: int, ran: int, ended: int) -> None:
        """Count an answered request of `rows` inferences; the others are moments in nanoseconds.

        Between `decoded` and `started` it waited for its run. Runs are counted where they are done: one may
        answer many requests.
        """
        self.success += 1
        self.rows += rows
        self.input_ns += decoded - began
        self.run_ns += ran - started
        self.output_ns += ended - ran
        self.total_ns += ended - began
        self.last_ns = ended

    @property
    def queue_ns(self) -> int:
        """Nanoseconds that answered requests waited: what was neither reading, running nor writing."""
        return max(0, self.total_ns - self.input_ns - self.run_ns - self.output_ns)

    def failed(self, began: int, ended: int) -> None:
        """Count a request that got an error, from moment to moment in nanoseconds."""
        self.failure += 1
        self.failure_ns += ended - began


@dataclass(slots=True)
class ModelCounters:
    """What happened to one followed model."""

    versions: Mapping[int, VersionCounters] = field(default_factory=dict)
    """By number, what was asked for last at the end; replaced as a whole."""
    warm: frozenset[int] = frozenset()
    """Versions that can be asked, and so are never forgotten."""
    swaps: int = 0
    swap_seconds: float = 0.0
    last_swap_seconds: float = 0.0
    follower_failures: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    def answers(self) -> dict[int, int]:
        """Requests answered, by version."""
        return {version: counters.success for version, counters in self.versions.items()}

    def of_version(self, version: int) -> VersionCounters:
        """The counters of `version`; what was asked for longest ago is forgotten when there are too many."""
        counters = self.versions.get(version) or VersionCounters()
        others = [number for number in self.versions if number != version]
        stay = self.warm.union(others[1 - KEPT_VERSIONS :])
        kept = {number: self.versions[number] for number in others if number in stay}
        self.versions = {**kept, version: counters}
        return counters


def merged(parts: Sequence[Mapping[int, VersionCounters]]) -> Mapping[int, VersionCounters]:
    """What is counted of each version, over several channels that serve it."""
    if len(parts) == 1:
        return dict(parts[0])
    versions: dict[int, list[VersionCounters]] = {}
    for part in parts:
        for version, counters in list(part.items()):
            versions.setdefault(version, []).append(counters)
    return {version: _sum(found) for version, found in versions.items()}


def _sum(parts: Sequence[VersionCounters]) -> VersionCounters:
    names = [each.name for each in fields(VersionCounters)]
    total = VersionCounters(**{name: sum(getattr(part, name) for part in parts) for name in names})
    total.last_ns = max(part.last_ns for part in parts)
    return total
