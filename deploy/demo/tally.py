"""What came out of the scoring job and the server, counted; no IO."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ferryline.registry.documents import ChannelEntry
from ferryline.streams.scored import ScoredRecord


@dataclass(slots=True)
class VersionTally:
    """What one version did: records scored, and how many of those with a known truth were right."""

    scored: int = 0
    labelled: int = 0
    correct: int = 0

    @property
    def accuracy(self) -> float | None:
        """The share of right predictions, None before the first labelled record."""
        return self.correct / self.labelled if self.labelled else None


@dataclass(slots=True)
class ConsumerTally:
    """What one consumer was seen to serve: by generation, when it first did so."""

    newest: tuple[int, int] | None = None  # generation, version
    first_seen: dict[int, datetime] = field(default_factory=dict)

    def saw(self, generation: int, version: int, at: datetime) -> None:
        """One answer of this consumer, made at `at`."""
        known = self.first_seen.get(generation)
        if known is None or at < known:
            self.first_seen[generation] = at
        if self.newest is None or generation > self.newest[0]:
            self.newest = (generation, version)

    def latencies(self, history: list[ChannelEntry]) -> dict[int, float]:
        """Seconds from writing each generation to the first answer by it.

        Only of generations written after this consumer's first answer: before, nobody saw a swap.
        """
        begun = min(self.first_seen.values(), default=None)
        promoted = {entry.generation: entry.at for entry in history if begun and entry.at > begun}
        return {
            generation: (at - promoted[generation]).total_seconds()
            for generation, at in sorted(self.first_seen.items())
            if generation in promoted
        }


@dataclass(slots=True)
class Tally:
    """The scored and the dead, by version."""

    scored: int = 0
    dead: int = 0
    versions: dict[int, VersionTally] = field(default_factory=dict)
    flink: ConsumerTally = field(default_factory=ConsumerTally)

    def add_scored(self, record: ScoredRecord) -> None:
        """Count a record of the output topic."""
        self.scored += 1
        version = self.versions.setdefault(record.model.version, VersionTally())
        version.scored += 1
        if record.correct is not None:
            version.labelled += 1
            version.correct += record.correct
        self.flink.saw(record.model.generation, record.model.version, record.scored_at)

    def add_dead(self, count: int = 1) -> None:
        """Count dead letters."""
        self.dead += count


def median(values: list[float]) -> float | None:
    """The middle value, the lower of two; None of none."""
    return sorted(values)[(len(values) - 1) // 2] if values else None
