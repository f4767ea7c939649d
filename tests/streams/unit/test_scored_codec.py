from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.registry.documents import Label
from ferryline.streams.errors import MalformedRecordError
from ferryline.streams.scored import ModelStamp, decode_scored, encode_scored

STAMP = ModelStamp(name="digits", version=7, generation=9, digest="sha256:" + "ab" * 32)
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
_labels = st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
_times = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
    min_value=datetime(1970, 1, 3),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001 - likewise
)


def test_a_record_says_what_the_design_says() -> None:
    scores = np.array([[0.25, 0.75]], dtype=np.float32)
    (value,) = encode_scored([1], scores, [AT], [0], model=STAMP, scored_at=AT)
    assert orjson.loads(value) == {
        "prediction": 1,
        "scores": [0.25, 0.75],
        "event_time": "2026-01-02T03:04:05.678901Z",
        "scored_at": "2026-01-02T03:04:05.678901Z",
        "actual": 0,
        "model": {"name": "digits", "version": 7, "generation": 9, "digest": STAMP.digest},
    }


def test_truth_that_is_unknown_is_left_out() -> None:
    (value,) = encode_scored(["spam"], None, [AT], [None], model=STAMP)
    assert "actual" not in orjson.loads(value)
    record = decode_scored(value)
    assert (record.actual, record.correct, record.scores) == (None, None, None)
    assert record.scored_at <= datetime.now(UTC)


@given(
    st.lists(st.tuples(_labels, st.none() | _labels, _times), max_size=6),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_what_is_written_is_read_back(
    items: list[tuple[Label, Label | None, datetime]], dtype: type, transposed: bool
) -> None:
    scores = np.linspace(0, 1, 3 * len(items), dtype=dtype).reshape(len(items), 3)
    if transposed:  # a view that is not contiguous, as a slice of a wider output is
        scores = np.asfortranarray(scores)
    predictions, actuals, times = [[item[part] for item in items] for part in range(3)]
    values = encode_scored(predictions, scores, times, actuals, model=STAMP, scored_at=AT)
    for value, row, (prediction, actual, event_time) in zip(values, scores, items, strict=True):
        record = decode_scored(value)
        assert (record.prediction, record.actual) == (prediction, actual)
        assert (type(record.prediction), type(record.actual)) == (type(prediction), type(actual))
        assert (record.event_time, record.model) == (event_time, STAMP)
        assert record.scores == pytest.approx(row.tolist(), rel=1e-6)
        assert record.correct is (None if actual is None else prediction == actual)


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"prediction": 1}', b"\xff"])
def test_other_bytes_are_refused(value: bytes) -> None:
    with pytest.raises(MalformedRecordError, match="no scored record"):
        decode_scored(value)
