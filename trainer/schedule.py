"""When the next export is due, or the next try of one that failed. Pure: the caller says what time it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ferryline.streams.pipeline import ExportSpec

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0


@dataclass(frozen=True, slots=True)
class ExportSchedule:
    """Due after `every_records` or `every_seconds` with at least one new record, never within `min_seconds`.

    Attributes:
        every_records: records between two exports.
        every_seconds: seconds between two exports.
        min_seconds: seconds that always lie between two exports.
        records: records learnt at the last export.
        at: when that was, in seconds of the caller's clock.
        retry_at: when an export that failed is tried again; None after one that did not.
        pause: seconds that lay before that try.
    """

    every_records: int
    every_seconds: float
    min_seconds: float
    records: int
    at: float
    retry_at: float | None = None
    pause: float = 0.0

    @classmethod
    def start(cls, spec: ExportSpec, *, records: int, now: float) -> ExportSchedule:
        """The schedule of a trainer that starts now, when `records` were exported already."""
        return cls(spec.every_records, spec.every_seconds, spec.min_seconds, records, now)

    def due(self, *, records: int, now: float) -> bool:
        """Whether to export, `records` having been learnt."""
        if self.retry_at is not None:
            return now >= self.retry_at
        fresh, waited = records - self.records, now - self.at
        if fresh < 1 or waited < self.min_seconds:
            return False
        return fresh >= self.every_records or waited >= self.every_seconds

    def exported(self, *, records: int, now: float) -> ExportSchedule:
        """The schedule after an export, or after one was refused."""
        return replace(self, records=records, at=now, retry_at=None, pause=0.0)

    def failed(self, *, now: float) -> ExportSchedule:
        """The schedule after an export that the next try may do: with back-off, and without an end."""
        pause = min(max(FIRST_PAUSE, self.pause * 2), LONGEST_PAUSE)
        return replace(self, retry_at=now + pause, pause=pause)
