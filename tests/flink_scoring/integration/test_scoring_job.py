"""The real job on the real stack: every record comes out once, scored by one version, whatever happens."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.stack.local import LocalStack
from model_runtime.facts import read_facts
from registry import keys as store_keys
from registry.canary import CanarySplit
from registry.documents import ChannelEntry, ServedModelReport
from tests.flink_scoring.harness import Output, ScoringJob, digit, make_job, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SWAP_LIMIT = timedelta(seconds=3)
MakeModel = Callable[..., bytes]

BAD: dict[str, bytes | None] = {
    "no_value": None,
    "invalid_json": b'{"x": [1, 2',
    "not_an_object": b"[1, 2]",
    "missing_field": digit(0, x=None),
    "wrong_type": digit(0, x="1,2,3"),
    "wrong_length": digit(0, x=[1] * 63),
    "wrong_length/65": digit(0, x=[1] * 65),
    "not_a_number": digit(0, x=[1] * 63 + ["3"]),
    "not_finite": digit(0, x=[1.0] * 63 + [float("nan")]),
    "out_of_range": digit(0, x=[1] * 63 + [17]),
    "bad_event_time": digit(0, ts="yesterday"),
    "record_too_large": b"x" * 5_000_000,
}


@pytest.fixture
def job(stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    made = make_job(stack, pipeline_text(f"digits-{uuid.uuid4().hex[:8]}"), tmp_path)
    yield made
    made.cancel()


def versions_seen(output: Output) -> set[int]:
    return {record.model.version for record in output.scored.values()}


def require_identity(output: Output, entries: dict[int, ChannelEntry], answers: dict[int, int]) -> None:
    """Each prediction is that of the version on its stamp, and the stamp is complete."""
    for record in output.scored.values():
        entry = entries[record.model.generation]
        assert (record.model.name, record.model.version) == (entry.model, entry.version)
        assert record.model.digest == entry.blob_digest
        assert record.prediction == answers[entry.version]


def reported(job: ScoringJob) -> list[ServedModelReport]:
    return [report for beat in job.registry.consumers.all() for report in beat.models if beat.role == "flink"]


def test_every_record_comes_out_once_by_the_version_it_names(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source(partitions=2)
    first = {f"early-{number}".encode(): digit(number) for number in range(20)}
    job.send(first)
    job.submit("--parallelism", "2")
    wait_for(lambda: job.state() == "RUNNING", "the job to run")
    with pytest.raises(AssertionError, match="there are 0 outputs"):
        job.read(lambda output: output.seen, deadline=5)  # no model yet: nothing is lost, nothing dies
    entries = [job.promote(constant_model(1))]
    spoilt = {reason.encode(): value for reason, value in BAD.items()}
    job.send(spoilt, headers=[("trace", b"7")])
    with job.feeding() as sent:
        for answer in (2, 3, 4):
            newest = entries[-1].version
            job.read(lambda output, newest=newest: newest in versions_seen(output))
            entries.append(job.promote(constant_model(answer)))
        job.read(lambda output: 4 in versions_seen(output))
    output = job.read_all(len(first) + len(BAD) + len(sent))
    assert sorted(output.seen) == sorted([*first, *spoilt, *sent])
    require_identity(output, {entry.generation: entry for entry in entries}, {1: 1, 2: 2, 3: 3, 4: 4})
    for entry in entries[1:]:
        scored = [
            item.scored_at for item in output.scored.values() if item.model.generation == entry.generation
        ]
        assert min(scored) - entry.at <= SWAP_LIMIT
    for key, value in spoilt.items():
        letter = output.dead[key]
        headers = dict(letter.headers)
        assert letter.value == value
        assert headers["ferry.reason"].decode() == key.decode().split("/")[0]
        assert headers["trace"] == b"7"
        assert headers["ferry.topic"].decode() == job.pipeline.source.topic
        assert headers["ferry.pipeline"].decode() == job.pipeline.name
        assert headers["ferry.partition"] in {b"0", b"1"}
        assert headers["ferry.offset"].isdigit()
        assert headers["ferry.detail"]
    assert job.plan().count("ferry_score(") == 1, "Flink would call the function more than once per record"
    assert job.restarts() == 0


def test_a_killed_task_manager_costs_no_record_and_doubles_none(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source()
    entries = [job.promote(constant_model(1))]
    job.submit()
    with job.feeding() as sent:
        job.read(lambda output: len(output.seen) > 50)
        job.stack.kill_part("taskmanager")
        entries.append(job.promote(constant_model(2)))
        job.stack.start_part("taskmanager")
        job.read(lambda output: 2 in versions_seen(output))
    output = job.read_all(len(sent))
    assert sorted(output.seen) == sorted(sent)
    require_identity(output, {entry.generation: entry for entry in entries}, {1: 1, 2: 2})
    assert job.restarts() > 0


def test_a_store_that_goes_away_stops_nothing(job: ScoringJob, constant_model: MakeModel) -> None:
    job.create_source()
    entries = [job.promote(constant_model(1))]
    job.submit()
    with job.feeding() as sent:
        job.read(lambda output: output.seen)
        job.stack.kill_part("minio")
        gone = datetime.now(UTC)
        try:
            # checkpoints lie in the same MinIO, so what is scored now is committed when it is back
            job.read(lambda output: _scored_after(output, gone + timedelta(seconds=8)), committed=False)
            assert job.state() == "RUNNING"
        finally:
            job.stack.start_part("minio")
        entries.append(job.promote(constant_model(2)))
        job.read(lambda output: 2 in versions_seen(output))
    output = job.read_all(len(sent))
    assert sorted(output.seen) == sorted(sent)
    require_identity(output, {entry.generation: entry for entry in entries}, {1: 1, 2: 2})


def _scored_after(output: Output, moment: datetime) -> bool:
    return any(record.scored_at > moment for record in output.scored.values())


def test_a_bad_model_is_refused_where_people_look_and_the_last_good_one_goes_on(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source()
    entries = [job.promote(constant_model(1))]
    job.submit()
    with job.feeding() as sent:
        job.read(lambda output: output.seen)
        # a file that no cache has yet, so that the damaged one must be fetched
        fresh = constant_model(2, confidence=2 + time.time() % 1)
        entries += _promote_corrupt(job, fresh), _promote_narrow(job, constant_model)
        before = len(sent)
        job.read(lambda output: len(output.seen) > before)
        entries.append(job.promote(constant_model(4), allow_contract_change=True))
        job.read(lambda output: 4 in versions_seen(output))
    output = job.read_all(len(sent))
    assert sorted(output.seen) == sorted(sent)
    assert versions_seen(output) == {1, 4}
    require_identity(output, {entry.generation: entry for entry in entries}, {1: 1, 4: 4})
    assert job.restarts() == 0


def _promote_corrupt(job: ScoringJob, data: bytes) -> ChannelEntry:
    """A version whose file is damaged in the store."""
    manifest = job.registry.publish(job.pipeline.model, data, read_facts(data))
    job.registry.store.put(store_keys.blob(manifest.blob.digest), data[:-1] + b"!")
    entry = job.registry.promote(job.pipeline.model, manifest.version)
    wait_for(lambda: _refused(job, entry, "digest"), "the refusal in the heartbeat")
    return entry


def _promote_narrow(job: ScoringJob, constant_model: MakeModel) -> ChannelEntry:
    entry = job.promote(constant_model(3, width=63), allow_contract_change=True)
    wait_for(lambda: _refused(job, entry, "contract"), "the refusal in the heartbeat")
    return entry


def _refused(job: ScoringJob, entry: ChannelEntry, gate: str) -> bool:
    return any(
        (report.refused_generation, report.refused_gate) == (entry.generation, gate) and report.version == 1
        for report in reported(job)
    )


def test_a_canary_gets_its_share_of_keys_until_it_is_taken_back(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source()
    job.promote(constant_model(1))
    job.submit()
    before = {b"before": digit(0)}
    job.send(before)  # a Python worker starts with its first record
    model = job.pipeline.model
    second = job.registry.publish(model, data := constant_model(2), read_facts(data)).version
    canary = job.registry.promote(model, second, canary=40)
    wait_for(lambda: [report.canary_version for report in reported(job)] == [second], "the canary to serve")
    during = {f"during-{number}".encode(): digit(number) for number in range(200)}
    job.send(during)
    job.read(lambda output: len(output.seen) > len(during))
    back = job.registry.rollback(model)
    wait_for(lambda: [report.generation for report in reported(job)] == [back.generation], "the rollback")
    after = {f"after-{number}".encode(): digit(number) for number in range(50)}
    job.send(after)
    output = job.read_all(1 + len(during) + len(after))
    split = CanarySplit(f"{model}:{job.pipeline.channel}", second, 40)
    for key, record in output.scored.items():
        if key not in before:
            assert record.model.generation == (canary if key in during else back).generation
        taken = record.model.generation == canary.generation and split.takes(key)
        assert (record.prediction, record.model.version) == ((2, second) if taken else (1, 1))
    by_version = Counter(str(record.model.version) for record in output.scored.values())
    counts = dict(sorted(by_version.items()))
    assert counts["2"] >= sum(map(split.takes, during)) > 0
    wait_for(lambda: [report.answered for report in reported(job)] == [counts], "the counts by version")


def test_a_kafka_that_restarts_costs_no_record_and_doubles_none(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source()
    job.promote(constant_model(1))
    job.submit()
    early = {f"early-{number}".encode(): digit(number) for number in range(300)}
    job.send(early)
    job.read(lambda output: len(output.seen) > 50)
    job.stack.kill_part("kafka")
    job.stack.start_part("kafka")
    late = {f"late-{number}".encode(): digit(number) for number in range(300)}
    job.send(late)
    output = job.read_all(len(early) + len(late), deadline=150)
    assert sorted(output.seen) == sorted([*early, *late])


def test_an_orderly_stop_takes_the_heartbeat_away(job: ScoringJob, constant_model: MakeModel) -> None:
    job.create_source()
    job.promote(constant_model(1))
    job.submit()
    job.send({b"one": digit(1)})
    wait_for(lambda: [report.version for report in reported(job)] == [1], "a heartbeat")
    job.cancel()
    wait_for(lambda: not reported(job), "the heartbeat to go", deadline=20)


@pytest.mark.parametrize(
    ("flink", "arguments", "words"),
    [
        ((), (), ["no topic", "--create --topic"]),
        ((), ("--kafka", "127.0.0.1:1"), ["127.0.0.1:1 cannot be reached", "FERRY_KAFKA"]),
        ((), ("--store", "ftp://x"), ["ftp", "s3://"]),
        (("-Dpython.execution-mode=thread",), (), ["thread", "pemja", "process"]),
    ],
)
def test_what_cannot_work_is_told_in_one_line_before_anything_runs(
    job: ScoringJob, flink: tuple[str, ...], arguments: tuple[str, ...], words: list[str]
) -> None:
    if flink:
        job.create_source()
    result = job.run(*arguments, flink=flink)
    assert result.returncode != 0
    lines = [line for line in (result.stdout + result.stderr).splitlines() if "error: " in line]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
    assert 'File "' not in result.stdout + result.stderr, "a Python traceback was shown"


def test_a_dead_letter_topic_that_takes_less_gets_where_the_record_lies(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    from streams.kafka import ensure_topics

    job.create_source()
    ensure_topics(
        job.kafka, {job.pipeline.require_scoring().dead_letters: 1}, {"max.message.bytes": "1048588"}
    )
    job.promote(constant_model(1))
    job.submit()
    job.send({b"small": b"{", b"large": b"x" * 5_000_000, b"good": digit(1)})
    output = job.read_all(3)
    assert output.dead[b"small"].value == b"{"
    assert output.dead[b"large"].value is None
    headers = dict(output.dead[b"large"].headers)
    assert headers["ferry.reason"] == b"record_too_large"
    assert (headers["ferry.partition"], headers["ferry.offset"]) == (b"0", b"1")
    assert b"good" in output.scored
