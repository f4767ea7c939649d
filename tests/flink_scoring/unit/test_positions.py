from __future__ import annotations

import pytest

from ferryline.flink_scoring.positions import Start, StartPositions, TopicOffsets, choose_positions

FIRST = {0: 5, 1: 0, 2: 0}
END = {0: 90, 1: 30, 2: 0}
WRITTEN = {0: 95, 1: 30, 2: 0}  # five records of a transaction that is open


def choose(
    committed: dict[int, int], *, start: Start = Start.COMMITTED, fallback: Start = Start.LATEST
) -> StartPositions:
    found = TopicOffsets(FIRST, END, WRITTEN, committed)
    return choose_positions("t", "g", found, start=start, fallback=fallback)


@pytest.mark.parametrize(
    ("start", "fallback", "offsets"),
    [
        (Start.LATEST, Start.EARLIEST, END),
        (Start.EARLIEST, Start.LATEST, FIRST),
        (Start.COMMITTED, Start.LATEST, END),
        (Start.COMMITTED, Start.EARLIEST, FIRST),
    ],
)
def test_every_partition_has_an_offset_an_idle_and_an_empty_one_too(
    start: Start, fallback: Start, offsets: dict[int, int]
) -> None:
    chosen = choose({}, start=start, fallback=fallback)
    assert chosen.offsets == offsets
    assert chosen.uncommitted == {0, 1, 2}


def test_what_the_group_has_decides_only_where_it_is_asked() -> None:
    committed = {0: 50, 1: 10, 2: 0}
    assert choose(committed).offsets == committed
    assert choose(committed, start=Start.LATEST).offsets == END
    assert choose(committed, start=Start.EARLIEST).uncommitted == frozenset()


def test_a_partition_that_the_group_has_no_offset_of_was_added_and_begins_at_its_beginning() -> None:
    chosen = choose({0: 50, 2: 0}, fallback=Start.LATEST)
    assert chosen.offsets == {0: 50, 1: 0, 2: 0}
    assert chosen.uncommitted == {1}


@pytest.mark.parametrize("offset", [4, 96])
def test_an_offset_that_is_not_there_gives_way_to_the_oldest_that_is_and_never_to_the_end(
    offset: int,
) -> None:
    chosen = choose({0: offset, 1: 30, 2: 0})
    assert chosen.offsets == {0: 5, 1: 30, 2: 0}
    assert chosen.unreadable == {0: offset}


def test_a_partition_that_is_gone_with_its_topic_is_not_read() -> None:
    assert choose({0: 50, 1: 30, 2: 0, 3: 8}).offsets == {0: 50, 1: 30, 2: 0}


@pytest.mark.parametrize("offset", [91, 95])
def test_an_offset_behind_records_of_an_open_transaction_is_there(offset: int) -> None:
    chosen = choose({0: offset, 1: 30, 2: 0})
    assert chosen.offsets[0] == offset
    assert not chosen.unreadable
