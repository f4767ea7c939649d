"""What becomes of a letter in a replay, decided without asking anybody."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from ferryline.flink_scoring.dead_letters.ledger import Replayed
from ferryline.flink_scoring.dead_letters.letters import StoredLetter
from ferryline.flink_scoring.dead_letters.selection import Selection

MOST_REPLAYS = 3
"""A record that died after so many replays is not mended; sending it again would only go round."""

RECORD_OVERHEAD = 512
"""Bytes that a batch of one record and the frames of its fields may take."""


class Verdict(StrEnum):
    """What becomes of a letter."""

    REPLAYED = "replayed"
    ALREADY = "replayed before"
    NOT_SELECTED = "not selected"
    EXHAUSTED = "refused: keeps failing"
    VALUE_LOST = "skipped: value lost"
    TOO_LARGE = "skipped: too large"
    FOREIGN = "no letter of this pipeline"

    @property
    def settles(self) -> bool:
        """Whether nothing is left to do about the letter."""
        return self in {Verdict.REPLAYED, Verdict.ALREADY, Verdict.FOREIGN}


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides by the letter alone; REPLAYED says that it shall be sent.

    Attributes:
        selection: what the command is about.
        replayed: what earlier replays have sent.
        force: send what keeps failing, too.
    """

    selection: Selection
    replayed: Replayed
    force: bool = False

    def __call__(self, stored: StoredLetter) -> Verdict:
        """What becomes of it."""
        letter = stored.letter
        if letter is None or not self.selection.is_ours(stored):
            return Verdict.FOREIGN
        if (stored.partition, stored.offset) in self.replayed:
            return Verdict.ALREADY
        if not self.selection.takes(stored):
            return Verdict.NOT_SELECTED
        if letter.replays >= MOST_REPLAYS and not self.force:
            return Verdict.EXHAUSTED
        return Verdict.REPLAYED


@dataclass(slots=True)
class Report:
    """What a replay did.

    Attributes:
        counts: letters by verdict and reason.
        stopped: whether it was ended before it was through.
    """

    counts: Counter[tuple[Verdict, str]] = field(default_factory=Counter)
    stopped: bool = False

    def add(self, verdict: Verdict, stored: StoredLetter) -> None:
        """One more letter."""
        self.counts[verdict, stored.letter.reason if stored.letter else "-"] += 1

    def of(self, verdict: Verdict) -> int:
        """How many letters got this verdict."""
        return sum(count for (found, _), count in self.counts.items() if found is verdict)
