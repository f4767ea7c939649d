"""Which rows of a batch belong to which generation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ferryline.flink_scoring.timeline.rules import Assigned, Span

Offsets = npt.NDArray[np.int64]
Partitions = npt.NDArray[np.integer[Any]]
Rows = npt.NDArray[np.int64]


class Part(NamedTuple):
    """The rows of one partition in a batch.

    Attributes:
        partition: its number.
        first: the lowest of their offsets.
        last: the highest.
        rows: their places in the batch; None for all.
    """

    partition: int
    first: int
    last: int
    rows: Rows | None


def parts_of(partitions: Partitions, offsets: Offsets) -> Iterator[Part]:
    """A batch by partition.

    Args:
        partitions: [n].
        offsets: [n].
    """
    if not len(offsets):
        return
    first = partitions[0]
    if (partitions == first).all():
        yield Part(int(first), int(offsets.min()), int(offsets.max()), None)
        return
    for partition in np.unique(partitions).tolist():
        rows = np.flatnonzero(partitions == partition)
        own = offsets[rows]
        yield Part(partition, int(own.min()), int(own.max()), rows)


def by_generation(offsets: Offsets, spans: Iterable[tuple[Part, list[Span]]]) -> dict[Assigned, Rows | None]:
    """The rows that each generation scores, ascending; None stands for all of the batch.

    Args:
        offsets: [n], of the batch.
        spans: what scores the rows of each partition.
    """
    found: dict[Assigned, list[Rows | None]] = {}
    for part, own in spans:
        for span in own:
            found.setdefault(span.by, []).append(_rows_in(offsets, part, span, alone=len(own) == 1))
    if len(found) == 1:
        return dict.fromkeys(found)
    joined = {by: _joined(pieces, len(offsets)) for by, pieces in found.items()}
    return {by: rows for by, rows in joined.items() if len(rows)}


def _rows_in(offsets: Offsets, part: Part, span: Span, *, alone: bool) -> Rows | None:
    if alone:
        return part.rows
    own = offsets if part.rows is None else offsets[part.rows]
    within = np.flatnonzero((own >= span.start) & (own < span.stop))
    return within if part.rows is None else part.rows[within]


def _joined(pieces: list[Rows | None], count: int) -> Rows:
    arrays = [np.arange(count) if piece is None else piece for piece in pieces]
    return arrays[0] if len(arrays) == 1 else np.sort(np.concatenate(arrays))
