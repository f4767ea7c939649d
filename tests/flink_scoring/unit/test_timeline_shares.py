"""A batch is divided by generation: each row once, and as its partition's timeline says."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ferryline.flink_scoring.timeline.rules import Assigned, Switch, Timeline
from ferryline.flink_scoring.timeline.shares import by_generation, parts_of


def generation(number: int) -> Assigned:
    return Assigned("digits:production", number, number, f"sha256:{number:064x}")


@given(
    places=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=1, unique=True),
    switches=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), min_size=1, max_size=5),
)
def test_each_row_is_scored_once_as_its_timeline_says(
    places: list[tuple[int, int]], switches: list[tuple[int, int]]
) -> None:
    written = [Switch(number, at, generation(by)) for number, (at, by) in enumerate(switches, start=1)]
    partitions, offsets = (np.array(column) for column in zip(*places, strict=True))
    spans = [
        (part, Timeline(written, first=part.first, floor=0).score(part.first, part.last))
        for part in parts_of(partitions, offsets)
    ]
    found: dict[int, int] = {}
    for by, rows in by_generation(offsets, spans).items():
        for row in range(len(places)) if rows is None else rows.tolist():
            assert row not in found
            found[row] = by.generation
    for row, (_, offset) in enumerate(places):
        single = Timeline(written, first=offset, floor=0).score(offset, offset)
        assert found[row] == single[0].by.generation


def test_a_batch_of_one_generation_is_not_divided() -> None:
    offsets = np.arange(10)
    written = [Switch(1, 0, generation(1))]
    parts = list(parts_of(np.zeros(10, np.int32), offsets))
    spans = [(part, Timeline(written, first=0, floor=0).score(part.first, part.last)) for part in parts]
    assert by_generation(offsets, spans) == {generation(1): None}


def test_an_empty_batch_has_no_parts() -> None:
    assert list(parts_of(np.array([], np.int32), np.array([], np.int64))) == []
