"""Records as they came from the topic, before anyone looked inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ferryline.streams.event_time import moment_at


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

    def timestamp(self, index: int) -> datetime | None:
        """Kafka's time of a record; None where its number is no moment of the years 1 to 9999."""
        return moment_at(self.timestamps[index])

    def of(self, indexes: Sequence[int]) -> FetchedBatch:
        """Returns a batch of some of the records, which ends where this one ends."""
        return FetchedBatch(
            values=[self.values[index] for index in indexes],
            partitions=[self.partitions[index] for index in indexes],
            offsets=[self.offsets[index] for index in indexes],
            timestamps=[self.timestamps[index] for index in indexes],
            next_offsets=self.next_offsets,
        )
