"""Which letters a command is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ferryline.flink_scoring.dead_letters.letters import StoredLetter
from ferryline.registry.durations import parse_duration
from ferryline.registry.errors import UsageError
from ferryline.streams.event_time import parse_event_time


@dataclass(frozen=True, slots=True)
class Selection:
    """The letters of one pipeline, for all reasons or some, from the beginning or a moment on.

    Attributes:
        pipeline: the pipeline's name; letters of another one in the same topic are none of ours.
        reasons: the reasons that are wanted; empty for all.
        since: the earliest moment at which a letter was written; None for any.
    """

    pipeline: str
    reasons: frozenset[str] = frozenset()
    since: datetime | None = None

    def is_ours(self, stored: StoredLetter) -> bool:
        """Whether it is a letter, and of this pipeline."""
        return stored.letter is not None and stored.letter.pipeline == self.pipeline

    def takes(self, stored: StoredLetter) -> bool:
        """Whether the command is about this letter."""
        if stored.letter is None or not self.is_ours(stored):
            return False
        in_time = self.since is None or stored.written_at >= self.since
        return in_time and (not self.reasons or stored.letter.reason in self.reasons)


def parse_since(text: str, now: datetime) -> datetime:
    """A moment as people name it: ISO 8601 (without an offset: UTC), or how long ago (`90s`, `2h`, `7d`).

    Raises:
        UsageError: it is neither.
    """
    moment = parse_event_time(text)
    if moment is not None:
        return moment
    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise UsageError(
            f"--since {text!r} is no moment; write 2026-01-02T03:04 (UTC), or how long ago: 90s, 2h, 7d"
        ) from error


def parse_place(text: str) -> tuple[int, int]:
    """Partition and offset from `PARTITION:OFFSET`.

    Raises:
        UsageError: it is not of that form.
    """
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal() and text.isascii()):
        raise UsageError(
            f"{text!r} is no place of a letter; write PARTITION:OFFSET, as `ferry-dlq list` does"
        )
    return int(partition), int(offset)
