import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.streams.documents import AsExpected, DocumentDecoder, Opened
from ferryline.streams.json_records import JsonFormat
from ferryline.streams.pipeline import ArrayFeatures, LabelSpec, ObjectFeatures, SourceSpec
from ferryline.streams.records import LabelUse, RecordDecoder, RejectReason

ARRAY = SourceSpec(
    topic="t",
    event_time="ts",
    max_record_bytes=500,
    features=ArrayFeatures(field="x", kind="array", size=3, minimum=0, maximum=16),
    label=LabelSpec(field="y", classes=(0, 1, 2)),
)
OBJECT = SourceSpec(
    topic="t",
    features=ObjectFeatures(field="x", kind="object", names=("a", "b")),
    label=LabelSpec(field="y", classes=(False, True)),
)
GOOD: dict[str, Any] = {"ts": "2026-01-02 03:04:05.678", "x": [1, 2.5, 16], "y": 1}


def record(**changes: Any) -> bytes:
    document = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return orjson.dumps(document)


BAD = [
    (None, RejectReason.NO_VALUE),
    (b" " * 501, RejectReason.RECORD_TOO_LARGE),
    (b"", RejectReason.INVALID_JSON),
    (b"{", RejectReason.INVALID_JSON),
    (b"\xff\xfe", RejectReason.INVALID_JSON),
    (b'{"x": [1,2,3]} {}', RejectReason.INVALID_JSON),
    (b"[" * 400, RejectReason.INVALID_JSON),
    (json.dumps(GOOD | {"x": [1, 2, float("nan")]}).encode(), RejectReason.NOT_FINITE),
    (json.dumps(GOOD | {"x": [1, 2, float("-inf")]}).encode(), RejectReason.NOT_FINITE),
    (b"null", RejectReason.NOT_AN_OBJECT),
    (b"[1,2,3]", RejectReason.NOT_AN_OBJECT),
    (record(x=...), RejectReason.MISSING_FIELD),
    (record(x=None), RejectReason.MISSING_FIELD),
    (record(y=...), RejectReason.MISSING_FIELD),
    (record(ts=...), RejectReason.MISSING_FIELD),
    (record(x={"a": 1}), RejectReason.WRONG_TYPE),
    (record(x="123"), RejectReason.WRONG_TYPE),
    (record(x=[1, 2]), RejectReason.WRONG_LENGTH),
    (record(x=[1, 2, 3, 4]), RejectReason.WRONG_LENGTH),
    (record(x=[]), RejectReason.WRONG_LENGTH),
    (record(x=[1, 2, "3"]), RejectReason.NOT_A_NUMBER),
    (record(x=[1, 2, True]), RejectReason.NOT_A_NUMBER),
    (record(x=[1, 2, None]), RejectReason.NOT_A_NUMBER),
    (record(x=[1, 2, [3]]), RejectReason.NOT_A_NUMBER),
    (record(x=[1, 2, 17]), RejectReason.OUT_OF_RANGE),
    (record(x=[-0.001, 2, 3]), RejectReason.OUT_OF_RANGE),
    (record(y=3), RejectReason.BAD_LABEL),
    (record(y="1"), RejectReason.BAD_LABEL),
    (record(y=True), RejectReason.BAD_LABEL),
    (record(y=[1]), RejectReason.BAD_LABEL),
    (record(ts="yesterday"), RejectReason.BAD_EVENT_TIME),
    (record(ts=True), RejectReason.BAD_EVENT_TIME),
    (record(ts=1e300), RejectReason.BAD_EVENT_TIME),
]


@pytest.mark.parametrize(("value", "reason"), BAD)
def test_each_fault_has_its_reason(value: bytes | None, reason: RejectReason) -> None:
    batch = RecordDecoder(ARRAY).decode_batch([value])
    assert [(item.index, item.reason) for item in batch.rejections] == [(0, reason)]
    assert batch.rejections[0].detail
    assert batch.rows.shape == (0, 3)
    assert len(batch) == 0


@pytest.mark.parametrize("depth", [200, 255, 400, 1000])
@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ('{"ts": 0, "x": [1, 2, %s], "y": 1}', RejectReason.NOT_A_NUMBER),
        ('{"ts": 0, "x": %s, "y": 1}', RejectReason.WRONG_LENGTH),
        ('{"ts": %s, "x": [1, 2, 3], "y": 1}', RejectReason.BAD_EVENT_TIME),
        ('{"ts": 0, "x": [1, 2, 3], "y": %s}', RejectReason.BAD_LABEL),
    ],
)
def test_what_is_nested_deeper_than_can_be_written_is_a_fault_like_any(
    where: str, reason: RejectReason, depth: int
) -> None:
    source = ARRAY.model_copy(update={"max_record_bytes": 5000})
    value = (where % ("[" * depth + "]" * depth)).encode()
    batch = RecordDecoder(source).decode_batch([value, record()])
    assert [(item.index, item.reason) for item in batch.rejections] == [(0, reason)]
    assert len(batch) == 1


def test_bad_records_do_not_spoil_their_batch() -> None:
    values: list[bytes | None] = []
    for position, (bad, _) in enumerate(BAD):
        values += [bad, record(x=[position % 16, 0, 0])]
    batch = RecordDecoder(ARRAY).decode_batch(values)
    assert batch.accepted.tolist() == list(range(1, 2 * len(BAD), 2))
    assert batch.rows[:, 0].tolist() == [position % 16 for position in range(len(BAD))]
    assert [(item.index, item.reason) for item in batch.rejections] == [
        (2 * position, reason) for position, (_, reason) in enumerate(BAD)
    ]


def test_a_good_record_is_read_exactly() -> None:
    batch = RecordDecoder(ARRAY).decode_batch([record()])
    assert batch.rows.dtype == np.float64
    assert batch.rows.tolist() == [[1.0, 2.5, 16.0]]
    assert batch.labels == [1]
    assert batch.event_times == [datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)]


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05",
        "2026-01-02T04:04:05+01:00",
        1767323045,
        1767323045.0,
        1767323045000,
    ],
)
def test_event_times_are_read_as_utc(written: Any) -> None:
    batch = RecordDecoder(ARRAY).decode_batch([record(ts=written)])
    assert batch.event_times == [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)]


@pytest.mark.parametrize("label", [..., None, 7, "1", [1]])
def test_a_scorer_does_without_the_label(label: Any) -> None:
    batch = RecordDecoder(ARRAY).decode_batch([record(y=label)], label=LabelUse.OPTIONAL)
    assert batch.labels == [None]
    assert not batch.rejections


def test_named_features_come_in_the_order_of_the_pipeline() -> None:
    decoder = RecordDecoder(OBJECT)
    batch = decoder.decode_batch(
        [
            b'{"x": {"b": 2, "extra": "?", "a": 1}, "y": true}',
            b'{"x": {"a": 1}, "y": true}',
            b'{"x": {"a": 1, "b": false}, "y": true}',
            b'{"x": [1, 2], "y": true}',
        ]
    )
    assert batch.rows.tolist() == [[1.0, 2.0]]
    assert batch.labels == [True]
    assert batch.event_times == [None]
    assert [(item.reason, item.detail) for item in batch.rejections] == [
        (RejectReason.MISSING_FIELD, "no field 'x.b'"),
        (RejectReason.NOT_A_NUMBER, "b is false"),
        (RejectReason.WRONG_TYPE, "'x' is an array, not an object"),
    ]


def test_an_empty_batch_is_empty() -> None:
    batch = RecordDecoder(ARRAY).decode_batch([])
    assert batch.rows.shape == (0, 3)
    assert batch.accepted.dtype == np.int64


_number = st.one_of(st.integers(-1, 17), st.floats(allow_nan=False, allow_infinity=False))
_json = st.recursive(
    st.none() | st.booleans() | _number | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
_record = st.one_of(
    st.none(),
    st.binary(max_size=20),
    _json.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            "x": st.lists(st.integers(0, 16), min_size=3, max_size=3) | st.lists(_json, max_size=4),
            "y": st.integers(0, 3) | _json,
            "ts": st.sampled_from(["2026-01-02", 1e9, 1e12, "x", None]) | _json,
        },
    ).map(lambda value: json.dumps(value).encode()),
)


@given(st.lists(_record, max_size=12), st.sampled_from(LabelUse))
def test_a_batch_decodes_as_its_records_do_one_by_one(values: list[bytes | None], use: LabelUse) -> None:
    decoder = RecordDecoder(ARRAY)
    together = decoder.decode_batch(values, label=use)
    alone = [decoder.decode_batch([value], label=use) for value in values]
    accepted = [index for index, batch in enumerate(alone) if len(batch)]
    assert together.accepted.tolist() == accepted
    assert together.rows.tolist() == [alone[index].rows[0].tolist() for index in accepted]
    assert together.labels == [alone[index].labels[0] for index in accepted]
    assert together.event_times == [alone[index].event_times[0] for index in accepted]
    assert [(item.index, item.reason, item.detail) for item in together.rejections] == [
        (index, item.reason, item.detail) for index, batch in enumerate(alone) for item in batch.rejections
    ]
    assert len(together) + len(together.rejections) == len(values)
    assert np.isfinite(together.rows).all()


class _OneWay(JsonFormat):
    """JSON without the short way for arrays."""

    def opener(self, source: SourceSpec) -> Callable[[bytes], Opened]:
        return AsExpected(source, self)


def _texts(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A document as several writers write it, some of them badly."""
    text = json.dumps(document).encode()
    spaced = json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return st.sampled_from(
        [
            text,
            spaced,
            text.replace(b" ", b""),
            b" " + text + b"\r\n",
            b"\xef\xbb\xbf" + text,
            text + b"\0",
            text[:-1],
            text + b",",
            text.replace(b"]", b"],"),
            text.replace(b"[", b"[["),
            text.replace(b"1", b"01"),
            text.replace(b"1", b"true"),
            text.replace(b"1", b"1e999"),
            text.replace(b"1", b"-0"),
            text.replace(b"1", b"1E+0"),
            text.replace(b"1", b"18446744073709551616"),
            text.replace(b"1", b"0.10000000000000000000000000000000001"),
            text.replace(b"x", b"\\u0078"),
            text.replace(b"y", b"\xff"),
        ]
    )


_numbers = st.lists(st.integers(0, 16) | st.floats(0, 16) | st.just(1), min_size=3, max_size=3)
_nested = st.sampled_from([[[1], 2, 3], [[1, 2, 3]], [1, 2, [3]], [[], 1, 2, 3], [{}, 1, 2]])
_spelled = st.fixed_dictionaries(
    {"x": _numbers | _nested, "y": st.integers(0, 3)},
    optional={
        "ts": st.sampled_from(["2026-01-02", "2026-01-02T03:04:05+02:00", 1, 1.5, 1767323045678]),
        "note": st.text(max_size=3) | st.sampled_from(["[", "]", "true", None, 1, [1], {"x": 1}]),
    },
).flatmap(_texts)


@given(st.lists(_spelled | _record, max_size=8), st.sampled_from(LabelUse))
def test_the_short_way_reads_what_the_long_way_reads(values: list[bytes | None], use: LabelUse) -> None:
    short = RecordDecoder(ARRAY).decode_batch(values, label=use)
    long = DocumentDecoder(ARRAY, _OneWay()).decode_batch(values, label=use)
    assert short.rows.tobytes() == long.rows.tobytes()
    assert short.accepted.tolist() == long.accepted.tolist()
    assert (short.labels, short.event_times) == (long.labels, long.event_times)
    assert short.rejections == long.rejections


def test_a_record_with_a_foreign_label_and_no_event_time_is_read_where_labels_are_optional() -> None:
    value = b'{"x": {"a": 1, "b": 2}, "y": "?"}'
    batch = RecordDecoder(OBJECT).decode_batch([value], label=LabelUse.OPTIONAL)
    assert (batch.labels, batch.event_times) == ([None], [None])
    assert batch.rows.tolist() == [[1.0, 2.0]]
