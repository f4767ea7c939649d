"""The formats of a record's value, each held to: a batch decodes as its records do one by one."""

import io
import json
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ferryline.registry.errors import UsageError
from ferryline.streams.decoded import DecodedBatch
from ferryline.streams.documents import DocumentDecoder, SurpriseError
from ferryline.streams.json_records import JsonFormat
from ferryline.streams.pipeline import ArrayFeatures, LabelSpec, ObjectFeatures, SourceSpec, load_pipeline
from ferryline.streams.records import LabelUse, RecordDecoder, RejectReason

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Digit",
    "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "x", "type": {"type": "array", "items": ["double", "int", "boolean", "null"]}},
        {"name": "y", "type": ["null", "int", "string"], "default": None},
    ],
}
PARSED = fastavro.parse_schema(SCHEMA)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LABEL = LabelSpec(field="y", classes=(0, 1, 2))


def array(size: int = 3, **bounds: float) -> ArrayFeatures:
    return ArrayFeatures(field="x", kind="array", size=size, **bounds)


def source(**fields: Any) -> SourceSpec:
    given_fields = {"topic": "t", "features": array(minimum=0, maximum=16), "label": LABEL, **fields}
    return SourceSpec.model_validate(given_fields)


def avro(*, header: bool = False) -> SourceSpec:
    return source(format="avro", schema=json.dumps(SCHEMA), event_time="ts", registry_header=header)


def datum(**fields: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PARSED, {"ts": AT, "x": [1.0, 2, 16], "y": 1} | fields)
    return out.getvalue()


def tensor(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def facts(batch: DecodedBatch) -> Any:
    """Everything a batch says, so that two can be compared."""
    found = [(item.index, item.reason, item.detail) for item in batch.rejections]
    return batch.rows.tolist(), batch.accepted.tolist(), batch.labels, batch.event_times, found


def one_by_one(decoder: RecordDecoder, values: Sequence[bytes | None], use: LabelUse) -> Any:
    rows, accepted, labels, times, rejections = [], [], [], [], []
    for index, value in enumerate(values):
        alone = decoder.decode_batch([value], label=use)
        rows += alone.rows.tolist()
        accepted += [index] * len(alone)
        labels += alone.labels
        times += alone.event_times
        rejections += [(index, item.reason, item.detail) for item in alone.rejections]
    return rows, accepted, labels, times, rejections


# --- float32 --------------------------------------------------------------------------------------

FLOAT32 = source(format="float32")


def test_a_raw_tensor_is_its_numbers() -> None:
    batch = RecordDecoder(FLOAT32).decode_batch([tensor(0, 0.5, 16)], label=LabelUse.OPTIONAL)
    assert batch.rows.dtype == np.float64
    assert facts(batch) == ([[0, 0.5, 16]], [0], [None], [None], [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, RejectReason.NO_VALUE),
        (b"", RejectReason.WRONG_LENGTH),
        (tensor(1, 2), RejectReason.WRONG_LENGTH),
        (tensor(1, 2, 3) + b"\0", RejectReason.WRONG_LENGTH),
        (bytes(2_000_000), RejectReason.RECORD_TOO_LARGE),
        (tensor(1, 2, float("nan")), RejectReason.NOT_FINITE),
        (tensor(1, float("-inf"), 3), RejectReason.NOT_FINITE),
        (tensor(1, 2, 16.5), RejectReason.OUT_OF_RANGE),
    ],
)
def test_a_tensor_at_fault_spoils_only_itself(value: bytes | None, reason: RejectReason) -> None:
    values = [tensor(1, 1, 1), value, tensor(2, 2, 2)]
    batch = RecordDecoder(FLOAT32).decode_batch(values, label=LabelUse.OPTIONAL)
    assert batch.accepted.tolist() == [0, 2]
    assert batch.rows[:, 0].tolist() == [1, 2]
    assert [(item.index, item.reason) for item in batch.rejections] == [(1, reason)]


def test_nothing_can_be_learnt_from_a_tensor() -> None:
    batch = RecordDecoder(FLOAT32).decode_batch([tensor(1, 2, 3)], label=LabelUse.REQUIRED)
    assert [item.reason for item in batch.rejections] == [RejectReason.MISSING_FIELD]


_tensors = st.one_of(
    st.none(),
    st.binary(max_size=13),
    st.binary(min_size=12, max_size=12),
    st.lists(st.floats(0, 16, width=32), min_size=3, max_size=3).map(lambda row: tensor(*row)),
)


@given(st.lists(_tensors, max_size=12), st.sampled_from(LabelUse))
def test_tensors_decode_together_as_alone(values: list[bytes | None], use: LabelUse) -> None:
    decoder = RecordDecoder(FLOAT32)
    assert facts(decoder.decode_batch(values, label=use)) == one_by_one(decoder, values, use)


# --- Avro -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [False, True])
def test_an_avro_record_is_read(header: bool) -> None:
    value = (b"\0\0\0\0\7" if header else b"") + datum()
    batch = RecordDecoder(avro(header=header)).decode_batch([value])
    assert facts(batch) == ([[1, 2, 16]], [0], [1], [AT], [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, RejectReason.NO_VALUE),
        (b"", RejectReason.INVALID_AVRO),
        (b"\xff" * 40, RejectReason.INVALID_AVRO),
        (datum()[:-1], RejectReason.INVALID_AVRO),
        (datum() + b"\0", RejectReason.INVALID_AVRO),
        (datum(x=[1, 2]), RejectReason.WRONG_LENGTH),
        (datum(x=[1, 2, True]), RejectReason.NOT_A_NUMBER),
        (datum(x=[1, 2, None]), RejectReason.NOT_A_NUMBER),
        (datum(x=[1, 2, 17]), RejectReason.OUT_OF_RANGE),
        (datum(x=[1, 2, float("nan")]), RejectReason.NOT_FINITE),
        (datum(y=None), RejectReason.MISSING_FIELD),
        (datum(y=7), RejectReason.BAD_LABEL),
        (datum(y="1"), RejectReason.BAD_LABEL),
    ],
)
def test_an_avro_record_at_fault_has_its_reason(value: bytes | None, reason: RejectReason) -> None:
    batch = RecordDecoder(avro()).decode_batch([datum(), value])
    assert batch.accepted.tolist() == [0]
    assert [(item.index, item.reason) for item in batch.rejections] == [(1, reason)]
    assert batch.rejections[0].detail


def test_a_header_that_is_asked_for_must_be_there() -> None:
    batch = RecordDecoder(avro(header=True)).decode_batch([b"\1\0\0\0\7" + datum(), b"\0\0"])
    assert [item.reason for item in batch.rejections] == [RejectReason.INVALID_AVRO] * 2
    assert "registry header" in batch.rejections[0].detail


_numbers = st.one_of(st.floats(), st.integers(-1, 17), st.booleans(), st.none())
_data = st.one_of(
    st.none(),
    st.binary(max_size=30),
    st.builds(
        lambda x, y: datum(x=x, y=y),
        st.lists(st.floats(0, 16) | _numbers, min_size=2, max_size=4),
        st.none() | st.integers(0, 3) | st.text(max_size=2),
    ),
)


@given(st.lists(_data, max_size=8), st.sampled_from(LabelUse))
def test_avro_records_decode_together_as_alone(values: list[bytes | None], use: LabelUse) -> None:
    decoder = RecordDecoder(avro())
    assert facts(decoder.decode_batch(values, label=use)) == one_by_one(decoder, values, use)


# --- the lane and the rules -----------------------------------------------------------------------


class RulesOnly(DocumentDecoder):
    """What the lane must agree with."""

    def _as_expected(self, value: bytes | None, use: LabelUse) -> Any:
        raise SurpriseError


OBJECT = source(features=ObjectFeatures(field="x", kind="object", names=("a", "b")), event_time="ts")
ONE = source(features=ObjectFeatures(field="x", kind="object", names=("a",), maximum=9))
WORDS = source(label=LabelSpec(field="y", classes=("false", "true")), event_time="ts")
TRUTHS = source(label=LabelSpec(field="y", classes=(False, True)), features=array(1))

_value = st.one_of(
    st.integers(-1, 17),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.sampled_from(["3", "true", "false", "", [1], {}, 2**70, -(2**63), 1e308]),
)
_times = st.sampled_from(
    [
        "2026-01-02",
        "2026-01-02 03:04:05.678",
        "2026-01-02T03:04:05+02:00",
        "2026-01-02T03Z",
        "",
        1e9,
        1e300,
        True,
    ]
)
_documents = st.fixed_dictionaries(
    {},
    optional={
        "x": st.lists(st.integers(0, 16), min_size=1, max_size=3)
        | st.lists(_value, max_size=4)
        | st.dictionaries(st.sampled_from("abc"), _value)
        | _value,
        "y": st.integers(0, 2) | st.sampled_from([1.0, True, False, "true"]) | _value,
        "ts": _times | _value,
    },
)
_json = st.one_of(
    st.none(), st.binary(max_size=20), (_documents | _value).map(lambda value: json.dumps(value).encode())
)


@pytest.mark.parametrize("spec", [source(event_time="ts"), OBJECT, ONE, WORDS, TRUTHS])
@given(values=st.lists(_json, max_size=10), use=st.sampled_from(LabelUse))
@example(values=[b'{"x": [1, 2, true], "y": 1, "ts": 1}'], use=LabelUse.OPTIONAL)
@example(values=[b'{"x": [1, 2, 3], "y": 1.0, "ts": "2026-01-02"}'], use=LabelUse.REQUIRED)
def test_the_lane_agrees_with_the_rules(spec: SourceSpec, values: list[bytes | None], use: LabelUse) -> None:
    lane, rules = DocumentDecoder(spec, JsonFormat()), RulesOnly(spec, JsonFormat())
    assert facts(lane.decode_batch(values, label=use)) == facts(rules.decode_batch(values, label=use))


def test_what_is_as_expected_takes_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = source(event_time="ts")
    decoder = DocumentDecoder(spec, JsonFormat())
    monkeypatch.setattr(decoder, "_by_the_rules", lambda *_: pytest.fail("a good record was surprising"))
    values = [
        json.dumps({"ts": "2026-01-02 03:04:05", "x": [1, 2.5, 16], **label}).encode()
        for label in ({"y": 1}, {}, {"y": None})
    ]
    assert len(decoder.decode_batch(values, label=LabelUse.OPTIONAL)) == 3


def test_decoded_rows_can_be_written_to() -> None:
    batch = RecordDecoder(source()).decode_batch([b'{"x": [1, 2, 3], "y": 1}'])
    batch.rows[0, 0] = 9  # an estimator that scales in place would fail on a view of bytes
    assert batch.rows[0, 0] == 9


# --- the pipeline file ----------------------------------------------------------------------------

PIPELINE = """
[pipeline]
name = "digits"
model = "digits"
[source]
topic = "in"
{source}
[source.features]
field = "x"
kind = "array"
size = 3
[source.label]
field = "y"
classes = [0, 1, 2]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "digits.toml"
    file.write_text(PIPELINE.format(source=text))
    return file


def test_a_schema_lies_beside_the_pipeline_and_travels_with_it(tmp_path: Path) -> None:
    (tmp_path / "digit.avsc").write_text(json.dumps(SCHEMA))
    file = written(tmp_path, 'format = "avro"\nschema = "digit.avsc"\nevent_time = "ts"')
    spec = load_pipeline(file).source
    (tmp_path / "digit.avsc").unlink()
    assert len(RecordDecoder(spec).decode_batch([datum()])) == 1
    assert hash(spec.avro_schema)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('format = "xml"', r"source\.format"),
        ('format = "avro"', "schema"),
        ('schema = "digit.avsc"', "belongs to format"),
        ('format = "avro"\nschema = "none.avsc"', r"none\.avsc cannot be read"),
        ('format = "avro"\nschema = "bad.avsc"', r"bad\.avsc is no Avro schema"),
        ('format = "avro"\nschema = "digit.avsc"\nevent_time = "at"', "no field 'at'"),
        ('format = "avro"\nschema = "int.avsc"', "is no record"),
        ('format = "float32"\nevent_time = "ts"', "no event_time"),
    ],
)
def test_a_format_that_does_not_fit_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "digit.avsc").write_text(json.dumps(SCHEMA))
    (tmp_path / "bad.avsc").write_text('{"type": "record"}')
    (tmp_path / "int.avsc").write_text('"int"')
    with pytest.raises(UsageError, match=said):
        load_pipeline(written(tmp_path, text))


PAGE = {
    "type": "record",
    "name": "Page",
    "fields": [
        {
            "name": "x",
            "type": ["null", {"type": "record", "name": "Facts", "fields": [
                {"name": "https", "type": "int"},
                {"name": "title", "type": "string"},
                {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                {"name": "age", "type": {"type": "long", "logicalType": "age-in-days"}},
            ]}],
        },
        {"name": "again", "type": "Facts"},
        {"name": "counts", "type": {"type": "map", "values": ["null", "double"]}},
        {"name": "words", "type": {"type": "map", "values": "string"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "pixels", "type": {"type": "array", "items": "float"}},
        {
            "name": "either",
            "type": ["Facts", {"type": "record", "name": "Sizes", "fields": [
                {"name": "width", "type": "int"},
            ]}],
        },
    ],
}  # fmt: skip


def of_page(features: dict[str, object]) -> SourceSpec:
    label = {"field": "y", "classes": [0, 1]}
    return SourceSpec.model_validate(
        {"topic": "t", "format": "avro", "schema": json.dumps(PAGE), "features": features, "label": label}
    )


@pytest.mark.parametrize("field", ["x", "again", "counts"])
def test_named_features_may_be_a_record_or_a_map_of_avro(field: str) -> None:
    assert of_page({"kind": "object", "field": field, "names": ["https"]}).features.width == 1
    assert of_page({"kind": "array", "field": "pixels", "size": 9}).features.width == 9


@pytest.mark.parametrize(
    ("field", "name"),
    [("x", "age"), ("either", "width"), ("either", "https")],
    ids=["unknown logical type", "2nd", "1st"],
)
def test_features_that_a_record_of_the_schema_may_have_are_taken(field: str, name: str) -> None:
    assert of_page({"kind": "object", "field": field, "names": [name]}).features.width == 1


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"field": "x", "names": ["https", "popup"]}, "'x' has no field 'popup', its fields are https,"),
        ({"field": "again", "names": ["popup"]}, "'again' has no field 'popup'"),
        ({"field": "x", "names": ["https", "title"]}, r"'x\.title' is no number"),
        ({"field": "x", "names": ["seen"]}, r"'x\.seen' is no number"),
        ({"field": "words", "names": ["https"]}, "'words' is neither a record nor a map of numbers"),
        ({"field": "pixels", "names": ["https"]}, "'pixels' is neither a record nor a map of numbers"),
        ({"field": "tags", "size": 3}, "'tags' is no array of numbers"),
        ({"field": "x", "size": 3}, "'x' is no array of numbers"),
        ({"field": "gone", "size": 3}, "the schema has no field 'gone', its fields are x, again"),
    ],
)
def test_features_that_no_record_of_the_schema_has_are_named(features: dict[str, object], said: str) -> None:
    kind = "object" if "names" in features else "array"
    with pytest.raises(ValidationError, match=said):
        of_page({"kind": kind, **features})


def test_named_features_are_no_tensor(tmp_path: Path) -> None:
    file = written(tmp_path, 'format = "float32"')
    file.write_text(file.read_text().replace('kind = "array"\nsize = 3', 'kind = "object"\nnames = ["a"]'))
    with pytest.raises(UsageError, match='kind = "array"'):
        load_pipeline(file)


def test_an_avro_value_that_ends_too_soon_is_told_in_words_that_stay_the_same() -> None:
    decoder = RecordDecoder(avro())
    reasons = [decoder.decode_batch([b"\x00\x02\x00"]).rejections[0].detail for _ in range(2)]
    assert reasons == ["the value ends too soon"] * 2
