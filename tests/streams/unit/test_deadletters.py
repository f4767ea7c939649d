from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.deadletters import DeadLetter, dead_letter_headers, decode_dead_letter
from streams.errors import MalformedRecordError

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
