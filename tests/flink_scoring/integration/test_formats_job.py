"""Sources that are not JSON, on the real stack: raw float32 tensors, and Avro with a registry's header."""

from __future__ import annotations

import io
import json
import struct
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pytest

from deploy.stack.local import LocalStack
from tests.flink_scoring.harness import ScoringJob, make_job

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVENT_TIME = 'event_time = "ts"'
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Digit",
    "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "x", "type": {"type": "array", "items": "int"}},
        {"name": "actual_y", "type": ["null", "int"], "default": None},
    ],
}
MakeJob = Callable[[str], ScoringJob]


@pytest.fixture
def make(stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[MakeJob]:
    """Makes a job whose source has these lines in the place of its event time."""
    made: list[ScoringJob] = []

    def make_with(lines: str) -> ScoringJob:
        text = pipeline_text(f"formats-{uuid.uuid4().hex[:8]}").replace(EVENT_TIME, lines)
        made.append(make_job(stack, text, tmp_path))
        return made[-1]

    yield make_with
    for job in made:
        job.cancel()


def tensor(first: float) -> bytes:
    return struct.pack("<64f", first, *[0.0] * 63)


def datum(first: int) -> bytes:
    out = io.BytesIO(b"\0\0\0\0\7")
    out.seek(5)
    fastavro.schemaless_writer(out, SCHEMA, {"ts": AT, "x": [first] + [0] * 63, "actual_y": first})
    return out.getvalue()


def test_raw_tensors_are_scored_and_have_the_time_of_kafka(make: MakeJob, picky_model: bytes) -> None:
    job = make('format = "float32"')
    job.create_source()
    job.promote(picky_model)
    good = {f"good-{first}".encode(): tensor(first) for first in range(10)}
    bad = {b"wrong_length": b"12345", b"out_of_range": tensor(17), b"not_finite": tensor(float("nan"))}
    before = datetime.now(UTC) - timedelta(seconds=1)
    job.send(good | bad)
    job.submit("--latency-ms", "50")
    output = job.read_all(len(good) + len(bad))
    assert {key: record.prediction for key, record in output.scored.items()} == {
        f"good-{first}".encode(): first for first in range(10)
    }
    assert all(before <= record.event_time <= datetime.now(UTC) for record in output.scored.values())
    assert all(record.actual is None for record in output.scored.values())
    assert {key: letter.value for key, letter in output.dead.items()} == bad
    reasons = {key: dict(letter.headers)["ferry.reason"].decode() for key, letter in output.dead.items()}
    assert reasons == {reason: reason.decode() for reason in bad}


def test_avro_with_a_header_is_scored_with_its_label_and_time(
    make: MakeJob, picky_model: bytes, tmp_path: Path
) -> None:
    (tmp_path / "digits.avsc").write_text(json.dumps(SCHEMA))
    job = make(f'format = "avro"\nschema = "digits.avsc"\nregistry_header = true\n{EVENT_TIME}')
    job.create_source()
    job.promote(picky_model)
    good = {f"good-{first}".encode(): datum(first) for first in range(10)}
    bad = {b"headless": datum(1)[5:], b"cut": datum(1)[:-1]}
    job.send(good | bad)
    job.submit()
    output = job.read_all(len(good) + len(bad))
    for first in range(10):
        record = output.scored[f"good-{first}".encode()]
        assert (record.prediction, record.actual, record.event_time) == (first, first, AT)
    assert {dict(letter.headers)["ferry.reason"] for letter in output.dead.values()} == {b"invalid_avro"}
    assert output.dead.keys() == bad.keys()
