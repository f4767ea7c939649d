"""Records as they came from the topic, before anyone looked inside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class FetchedBatch:
    """Records in the order they were read; all lists have one length.

    Attributes:
        values: the bytes; None for a tombstone.
        partitions: where each came from.
        offsets: and its offset there.
        timestamps: Kafka's timestamps in milliseconds since 1970.
        next_offsets: by partition, where reading goes on after this batch.
    """

    values: list[bytes | None]
    partitions: list[int]
    offsets: list[int]
    timestamps: list[int]
    next_offsets: dict[int, int]

    def __len__(self) -> int:
        """Records."""
        return len(self.values)

    def timestamp(self, index: int) -> datetime:
        """Kafka's time of a record."""
        return datetime.fromtimestamp(self.timestamps[index] / 1000, UTC)
