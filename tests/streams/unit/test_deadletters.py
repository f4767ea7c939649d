from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.streams.deadletters import (
    REPLAYED,
    DeadLetter,
    dead_letter_headers,
    decode_dead_letter,
    replay_headers,
)
from ferryline.streams.errors import MalformedRecordError

_text = st.text(st.characters(codec="utf-8"), max_size=20)
_header = st.tuples(_text.map(lambda name: f"h-{name}"), st.none() | st.binary(max_size=10))
_letters = st.builds(
    DeadLetter,
    key=st.none() | st.binary(max_size=10),
    value=st.none() | st.binary(max_size=10),
    reason=_text,
    detail=_text,
    topic=_text,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    pipeline=_text,
    headers=st.lists(_header, max_size=3).map(tuple),
    timestamp=st.none()
    | st.datetimes().map(
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    ),
)


@given(_letters)
def test_a_letter_is_read_back(letter: DeadLetter) -> None:
    assert decode_dead_letter(letter.key, letter.value, dead_letter_headers(letter)) == letter


@given(_letters, _letters)
def test_a_letter_that_fails_again_keeps_the_newest_reason(first: DeadLetter, second: DeadLetter) -> None:
    again = replace(second, headers=tuple(dead_letter_headers(first)))
    decoded = decode_dead_letter(again.key, again.value, dead_letter_headers(again))
    assert decoded == replace(second, headers=first.headers)


@pytest.mark.parametrize("spoilt", ["missing", "number"])
def test_other_records_are_refused(spoilt: str) -> None:
    letter = DeadLetter(None, None, "r", "d", "t", 0, 1, "p")
    headers = dead_letter_headers(letter)
    if spoilt == "missing":
        headers = [header for header in headers if header[0] != "ferry.offset"]
    else:
        headers = [(name, b"?" if name == "ferry.offset" else text) for name, text in headers]
    with pytest.raises(MalformedRecordError, match="no dead letter"):
        decode_dead_letter(None, None, headers)


def test_letters_of_older_jobs_have_no_timestamp() -> None:
    headers = dead_letter_headers(DeadLetter(None, b"v", "r", "d", "t", 0, 1, "p"))
    assert decode_dead_letter(None, b"v", headers).timestamp is None


def test_the_timestamp_is_what_flink_writes() -> None:
    headers = [*dead_letter_headers(DeadLetter(None, b"v", "r", "d", "t", 0, 1, "p"))]
    headers.append(("ferry.timestamp", b"2026-01-02 03:04:05.678"))
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert decode_dead_letter(None, b"v", headers).timestamp == moment


@given(_letters, st.integers(0, 5))
def test_replays_are_counted_through_death_after_death(letter: DeadLetter, times: int) -> None:
    own = letter.headers
    for count in range(times):
        assert letter.replays == count
        headers = replay_headers(letter)
        died = dead_letter_headers(replace(letter, headers=tuple(headers)))
        letter = decode_dead_letter(letter.key, letter.value, died)
    assert letter.replays == times
    assert [header for header in letter.headers if header[0] != REPLAYED] == list(own)


@pytest.mark.parametrize("count", [None, b"", b"-1", b"many", "²".encode(), b"9" * 5000])
def test_a_count_that_somebody_else_wrote_is_none(count: bytes | None) -> None:
    assert DeadLetter(None, None, "r", "d", "t", 0, 1, "p", ((REPLAYED, count),)).replays == 0
