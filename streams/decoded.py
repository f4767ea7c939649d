"""What becomes of a batch of records, whatever their format, and the one interface of all formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ferryline.registry.documents import Label
from ferryline.streams.rejections import Rejection

Rows: TypeAlias = npt.NDArray[np.float64]


class LabelUse(StrEnum):
    """Whether a record without a valid label is of use: a trainer requires one, a scorer does not."""

    REQUIRED = auto()
    OPTIONAL = auto()


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """What a batch held.

    Attributes:
        rows: [n, features], float64, in the order of the batch.
        accepted: [n], int64; where in the batch each row came from.
        labels: n labels; None only where labels are optional.
        event_times: n times in UTC; None where the pipeline takes Kafka's timestamp.
        rejections: the other records, in the order of the batch.
    """

    rows: Rows
    accepted: npt.NDArray[np.int64]
    labels: list[Label | None]
    event_times: list[datetime | None]
    rejections: list[Rejection]

    def __len__(self) -> int:
        """Accepted records."""
        return len(self.labels)

    def taking(self, rows: Sequence[int], rejections: list[Rejection]) -> DecodedBatch:
        """The batch with only these of its rows, ascending, and other rejections."""
        return DecodedBatch(
            rows=self.rows[rows],
            accepted=self.accepted[rows],
            labels=[self.labels[row] for row in rows],
            event_times=[self.event_times[row] for row in rows],
            rejections=rejections,
        )


class BatchDecoder(Protocol):
    """Decodes the values of one format. All that a codec is, so that a native one can take its place."""

    def decode_batch(self, values: Sequence[bytes | None], *, label: LabelUse) -> DecodedBatch:
        """Decode the values of a batch of records; nothing in them raises, and each is judged by itself."""
        ...
