"""Counting letters by reason. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ferryline.flink_scoring.dead_letters.ledger import Replayed
from ferryline.flink_scoring.dead_letters.letters import StoredLetter


@dataclass(slots=True)
class ReasonSummary:
    """The letters of one reason.

    Attributes:
        reason: the machine-readable word.
        letters: how many there are.
        replayed: how many of them were sent back to the source topic.
        again: how many had been replayed before they came here.
        oldest: when the first was written.
        newest: when the last was written.
        detail: what the newest says.
    """

    reason: str
    letters: int
    replayed: int
    again: int
    oldest: datetime
    newest: datetime
    detail: str

    @property
    def waiting(self) -> int:
        """How many were never replayed."""
        return self.letters - self.replayed

    def document(self) -> dict[str, Any]:
        """The summary for scripts."""
        return {
            "reason": self.reason,
            "letters": self.letters,
            "replayed": self.replayed,
            "waiting": self.waiting,
            "failed_again": self.again,
            "oldest": self.oldest,
            "newest": self.newest,
            "newest_detail": self.detail,
        }


def summarise(letters: Iterable[StoredLetter], replayed: Replayed) -> list[ReasonSummary]:
    """One summary per reason, the most frequent first; what is no letter counts nowhere."""
    found: dict[str, ReasonSummary] = {}
    for stored in letters:
        if stored.letter is not None:
            _count(found, stored, was_replayed=(stored.partition, stored.offset) in replayed)
    return sorted(found.values(), key=lambda item: (-item.letters, item.reason))


def _count(found: dict[str, ReasonSummary], stored: StoredLetter, *, was_replayed: bool) -> None:
    letter, at = stored.letter, stored.written_at
    assert letter is not None  # noqa: S101 - the caller has asked
    item = found.setdefault(letter.reason, ReasonSummary(letter.reason, 0, 0, 0, at, at, letter.detail))
    item.letters += 1
    item.replayed += was_replayed
    item.again += letter.replays > 0
    item.oldest = min(item.oldest, at)
    if at >= item.newest:
        item.newest, item.detail = at, letter.detail
