"""What a running job makes of records of every kind: tensors, Avro, old ones, large ones, dead ones again."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest

from ferryline.deploy.demo.cli import PIPELINES
from ferryline.deploy.stack.local import LocalStack
from ferryline.flink_scoring.dead_letters.cli import main as ferry_dlq
from ferryline.streams.kafka import ensure_topics
from tests.flink_scoring.accuracy import accuracy, create_labels, labelled, labels_toml, labels_topic, send_at
from tests.flink_scoring.commands import run_command
from tests.flink_scoring.harness import ScoringJob, digit, make_job, one_job
from tests.support.waiting import DEADLINE

pytestmark = pytest.mark.early

MakeModel = Callable[..., bytes]
Jobs = Mapping[str, ScoringJob]

HOUR = 3_600_000
PHISHING = 1250
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
AVRO = f'format = "avro"\nschema = "digits.avsc"\nregistry_header = true\n{EVENT_TIME}'


@pytest.fixture(scope="module")
def jobs(
    stack: LocalStack,
    pipeline_text: Callable[[str], str],
    own_settings: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Jobs]:
    """The pipelines of one running job, without models."""
    folder = tmp_path_factory.mktemp("pipelines")
    (folder / "digits.avsc").write_text(json.dumps(SCHEMA))
    names = ("tensors", "avro", "labelled", "narrow", "replayed")
    own = {name: f"digits-{name}-{uuid.uuid4().hex[:8]}" for name in names}
    texts = {name: pipeline_text(each) for name, each in own.items()}
    texts["tensors"] = texts["tensors"].replace(EVENT_TIME, 'format = "float32"')
    texts["avro"] = texts["avro"].replace(EVENT_TIME, AVRO)
    texts["labelled"] += labels_toml(own["labelled"])
    texts["phishing"] = _phishing_toml()
    made: dict[str, ScoringJob] = {}
    for name, text in texts.items():
        made[name] = make_job(stack, text, folder, store=made["tensors"].store if made else None)
        made[name].create_source(partitions=2 if name == "replayed" else 1)
    create_labels(made["labelled"])
    _learn_phishing(made["phishing"], folder / "trainer")
    small = {made["narrow"].pipeline.require_scoring().dead_letters: 1}
    ensure_topics(stack.addresses().kafka, small, {"max.message.bytes": "1048588"})
    with one_job(made, "--latency-ms", "50") as running:
        yield running


def _phishing_toml() -> str:
    """The demo's pipeline, with topics and a model of its own."""
    name = f"phishing-{uuid.uuid4().hex[:8]}"
    text = (PIPELINES / "phishing.toml").read_text()
    for own in ('"phishing"', '"ml_training_data"', '"phishing_predict"'):
        text = text.replace(own, f'"{name}.{own.strip(chr(34))}"')
    return text


# --- forms ------------------------------------------------------------------------------------------


def tensor(first: float) -> bytes:
    return struct.pack("<64f", first, *[0.0] * 63)


def datum(first: int) -> bytes:
    out = io.BytesIO(b"\0\0\0\0\7")
    out.seek(5)
    fastavro.schemaless_writer(out, SCHEMA, {"ts": AT, "x": [first] + [0] * 63, "actual_y": first})
    return out.getvalue()


def test_raw_tensors_are_scored_and_have_the_time_of_kafka(jobs: Jobs, picky_model: bytes) -> None:
    job = jobs["tensors"]
    job.promote(picky_model)
    good = {f"good-{first}".encode(): tensor(first) for first in range(10)}
    bad = {b"wrong_length": b"12345", b"out_of_range": tensor(17), b"not_finite": tensor(float("nan"))}
    sent_at = int(time.time()) * 1000 - HOUR
    job.send(good | bad, timestamp_ms=sent_at)
    output = job.read_all(len(good) + len(bad))
    assert sorted(output.seen) == sorted([*good, *bad])
    assert {key: record.prediction for key, record in output.scored.items()} == {
        f"good-{first}".encode(): first for first in range(10)
    }
    assert {record.event_time.timestamp() * 1000 for record in output.scored.values()} == {sent_at}
    assert all(record.actual is None for record in output.scored.values())
    assert {key: letter.value for key, letter in output.dead.items()} == bad
    reasons = {key: dict(letter.headers)["ferry.reason"].decode() for key, letter in output.dead.items()}
    assert reasons == {reason: reason.decode() for reason in bad}


def test_avro_with_a_header_is_scored_with_its_label_and_time(jobs: Jobs, picky_model: bytes) -> None:
    job = jobs["avro"]
    job.promote(picky_model)
    good = {f"good-{first}".encode(): datum(first) for first in range(10)}
    bad = {b"headless": datum(1)[5:], b"cut": datum(1)[:-1]}
    job.send(good | bad)
    output = job.read_all(len(good) + len(bad))
    assert sorted(output.seen) == sorted([*good, *bad])
    for first in range(10):
        record = output.scored[f"good-{first}".encode()]
        assert (record.prediction, record.actual, record.event_time) == (first, first, AT)
    assert {dict(letter.headers)["ferry.reason"] for letter in output.dead.values()} == {b"invalid_avro"}
    assert output.dead.keys() == bad.keys()


def _learn_phishing(job: ScoringJob, state: Path) -> None:
    """Before the job begins, so that it scores all of it by the last version."""
    topic, count = job.pipeline.source.topic, str(PHISHING)
    _run(job, "ferry-feed", "phishing", "--topic", topic, "--count", count, "--rate", "2000", "--seed", "1")
    _run(job, "ferry-trainer", "run", str(job.file), "--state", str(state), "--until-records", count)


def test_phishing_is_learnt_and_scored_with_true_and_false(jobs: Jobs) -> None:
    """The second pipeline through every real part: feed, trainer, registry on MinIO, scoring job."""
    job = jobs["phishing"]
    head = job.registry.channel(job.pipeline.model).require_head()
    manifest = job.registry.versions(job.pipeline.model).get(head.version)
    assert manifest.classes == (False, True)
    assert manifest.lineage is not None
    assert manifest.lineage.records <= PHISHING
    # the feed's keys come again with every pass, so records are counted and not told apart
    scored = job.read_all(PHISHING).scored
    assert {record.prediction for record in scored.values()} == {True, False}
    right = [record.correct for record in scored.values()]
    assert sum(filter(None, right)) / len(right) > 0.8
    assert {record.model.version for record in scored.values()} == {head.version}


def _run(job: ScoringJob, name: str, *arguments: str) -> None:
    environ = {**job.stack.addresses().environ(), "FERRY_STORE": job.store}
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr


# --- times and strangers ----------------------------------------------------------------------------


def test_a_scored_record_keeps_kafkas_timestamp_and_a_dead_letter_has_its_own(
    jobs: Jobs, constant_model: MakeModel
) -> None:
    job, now = jobs["labelled"], int(time.time() * 1000)
    job.promote(constant_model(1))
    records = [
        (b"old", digit(1), now - HOUR),
        (b"of 1970", digit(1), 5),
        (b"ahead", digit(1), now + HOUR // 2),
        (b"dead", b"{", now - HOUR),
    ]
    send_at(job, job.pipeline.source.topic, records)
    keys = {key for key, _, _ in records}
    output = job.read(lambda output: keys <= {*output.scored, *output.dead})
    times = {key: message.timestamp for key, message in output.written.items()}
    assert (times[b"old"], times[b"of 1970"]) == (now - HOUR, 5)
    written = time.time() * 1000
    assert now <= times[b"ahead"] <= written, "a broker may refuse a moment that is yet to come"
    assert now <= output.dead[b"dead"].timestamp <= written
    assert job.restarts() == 0


def test_a_record_that_others_wrote_among_the_scored_ones_is_no_prediction_and_ends_nothing(
    jobs: Jobs, constant_model: MakeModel
) -> None:
    job, now = jobs["labelled"], int(time.time() * 1000)
    job.promote(constant_model(1))
    send_at(job, job.pipeline.source.topic, [(b"ours", digit(1), now)])
    by = job.read(lambda output: b"ours" in output.scored).scored[b"ours"].model
    foreign = [(b"theirs", b'{"prediction": 1}', now), (b"theirs", b'{"prediction": 1, "model": {}}', now)]
    send_at(job, job.pipeline.require_scoring().topic, [*foreign, (b"theirs", b"no JSON", now)])
    send_at(job, labels_topic(job), [(b"theirs", b"1", now + 1000), (b"ours", b"1", now + 1000)])
    [found] = accuracy(job, lambda found: labelled(found) >= 1)
    counted = (found["version"], found["generation"], found["labelled"], found["right"])
    assert counted == (by.version, by.generation, 1, 1)
    assert job.restarts() == 0


# --- dead letters -----------------------------------------------------------------------------------


def test_a_dead_letter_topic_that_takes_less_gets_where_the_record_lies(
    jobs: Jobs, constant_model: MakeModel
) -> None:
    job = jobs["narrow"]
    job.promote(constant_model(1))
    job.send({b"small": b"{", b"large": b"x" * 5_000_000, b"good": digit(1)})
    output = job.read_all(3)
    assert sorted(output.seen) == [b"good", b"large", b"small"]
    assert output.dead[b"small"].value == b"{"
    assert output.dead[b"large"].value is None
    headers = dict(output.dead[b"large"].headers)
    assert headers["ferry.reason"] == b"record_too_large"
    assert (headers["ferry.partition"], headers["ferry.offset"]) == (b"0", b"1")
    assert b"good" in output.scored


def test_what_died_of_its_model_is_scored_once_after_a_replay(
    jobs: Jobs, picky_model: bytes, constant_model: MakeModel
) -> None:
    job = jobs["replayed"]
    job.promote(picky_model)  # cannot be run on a first feature above 9
    records = {f"r{number}".encode(): digit(number) for number in range(17)}
    fatal = {key for number, key in enumerate(records) if number > 9}
    job.send(records, headers=[("trace", b"7")])
    first = job.read_all(len(records))
    assert set(first.dead) == fatal
    letter = dict(first.dead[min(fatal)].headers)
    assert letter["ferry.timestamp"].startswith(b"20")
    assert len(letter["ferry.timestamp"]) == len("2026-01-02 03:04:05.678")

    assert _replay(job) == {"replayed": len(fatal)}  # nothing is mended: they die again, and say so
    again = job.read_all(len(records) + len(fatal))
    assert all(dict(again.dead[key].headers)["ferry.replayed"] == b"1" for key in fatal)
    assert all(dict(again.dead[key].headers)["trace"] == b"7" for key in fatal)

    better = job.promote(constant_model(3), allow_contract_change=True)
    job.wait_until_serving(better.version)
    assert _replay(job)["replayed"] == len(fatal)
    output = job.read_all(len(records) + 2 * len(fatal))
    counted = Counter(output.seen)
    assert all(counted[key] == 3 for key in fatal)  # dead twice, scored once
    assert counted.total() == len(records) + 2 * len(fatal)
    assert all(output.scored[key].model.version == better.version for key in fatal)
    assert _replay(job).get("replayed", 0) == 0


def _replay(job: ScoringJob) -> dict[str, int]:
    arguments = ["replay", str(job.file), "--kafka", job.kafka, "-o", "json"]
    ended = run_command(ferry_dlq, "ferry-dlq", *arguments)
    assert ended.code == 0, ended.err
    return {item["outcome"]: item["letters"] for item in json.loads(ended.out)["outcomes"]}
