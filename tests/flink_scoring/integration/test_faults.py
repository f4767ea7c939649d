"""Faults while records flow: none is lost, none comes twice, each is scored by one version however often."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.stack.local import LocalStack
from model_runtime.facts import read_facts
from registry import keys as store_keys
from registry.documents import ChannelEntry
from tests.flink_scoring.harness import Output, ScoringJob, make_job, wait_for
from tests.flink_scoring.replays import (
    Sent,
    every_answer,
    feeding,
    require_one_generation_per_record,
    stop_with_savepoint,
    wait_for_outputs_behind_a_checkpoint,
    wait_until_scored_by,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

MakeModel = Callable[..., bytes]
PATIENT = 240.0


@pytest.fixture
def job(stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    made = make_job(stack, pipeline_text(f"faults-{uuid.uuid4().hex[:8]}"), tmp_path)
    yield made
    made.cancel()


def require_all_once(output: Output, sent: Sent, entries: list[ChannelEntry]) -> None:
    """Each record came out once, in the topic where it belongs, by the whole version that it names."""
    assert sorted(output.seen) == sorted(sent.places)
    assert set(output.dead) == sent.poisoned
    by_generation = {entry.generation: entry for entry in entries}
    for record in output.scored.values():
        entry = by_generation[record.model.generation]
        assert (record.model.version, record.model.digest) == (entry.version, entry.blob_digest)
        assert record.prediction == entry.version  # each version of these tests answers with its own number


def begin(job: ScoringJob, constant_model: MakeModel, *arguments: str) -> list[ChannelEntry]:
    job.create_source(partitions=2)
    entries = [job.promote(constant_model(1))]
    job.submit(*arguments)
    return entries


def test_a_task_manager_killed_in_a_swap_replays_by_the_versions_of_before(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    entries = begin(job, constant_model, "--checkpoint-seconds", "8")
    with feeding(job) as sent:
        job.read(lambda output: len(output.seen) > 100, deadline=PATIENT)
        entries.append(job.promote(constant_model(2)))
        wait_until_scored_by(job, 2)
        wait_for_outputs_behind_a_checkpoint(job, 100)
        job.stack.kill_part("taskmanager")  # what it scored since the checkpoint is scored again
        entries.append(job.promote(constant_model(3)))
        job.stack.start_part("taskmanager")
        wait_until_scored_by(job, 3)
    output = job.read_all(len(sent), deadline=PATIENT)
    require_all_once(output, sent, entries)
    assert require_one_generation_per_record(every_answer(job), sent) > 0, "nothing was replayed"
    assert job.restarts() > 0


def test_a_job_manager_that_is_killed_loses_the_job_and_one_command_brings_it_back(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    entries = begin(job, constant_model, "--restore", "newest")  # nothing to restore yet: it begins anew
    with feeding(job) as sent:
        job.read(lambda output: len(output.seen) > 100, deadline=PATIENT)
        job.stack.kill_part("jobmanager")
        entries.append(job.promote(constant_model(2)))
        job.stack.start_part("jobmanager")
        job.submit("--restore", "newest")
        wait_until_scored_by(job, 2)
        assert f"/checkpoints/{job.pipeline.name}-scoring/" in job.restored_from()
    output = job.read_all(len(sent), deadline=PATIENT)
    require_all_once(output, sent, entries)
    require_one_generation_per_record(every_answer(job), sent)


def test_a_job_goes_on_from_its_savepoint_with_another_parallelism(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    entries = begin(job, constant_model, "--parallelism", "1")
    with feeding(job) as sent:
        job.read(lambda output: len(output.seen) > 100, deadline=PATIENT)
        savepoint = stop_with_savepoint(job)
        assert savepoint.startswith("s3://")
        entries.append(job.promote(constant_model(2)))
        job.submit("--parallelism", "2", "--restore", "newest")
        wait_until_scored_by(job, 2)
        assert job.restored_from() == savepoint
    output = job.read_all(len(sent), deadline=PATIENT)
    require_all_once(output, sent, entries)
    assert require_one_generation_per_record(every_answer(job), sent) == 0, "a savepoint needs no replay"


# kafka-python leaves sockets open where a broker that is starting listens and does not answer yet
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_bad_records_bad_models_and_servers_that_come_and_go_at_once(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    entries = begin(job, constant_model)
    with feeding(job, poison_every=100) as sent:
        job.read(lambda output: len(output.seen) > 100, deadline=PATIENT)
        corrupt = _promote_corrupt(job, constant_model)
        narrow = job.promote(constant_model(3, width=63), allow_contract_change=True)
        wait_for(lambda: _refused(job, narrow), "the refusal in the heartbeat", deadline=PATIENT)
        entries.append(job.promote(constant_model(4), allow_contract_change=True))
        entries.append(job.promote(constant_model(5)))  # two in one second
        wait_until_scored_by(job, entries[-1].generation)
        _minio_away(job, seconds=60)
    job.stack.kill_part("kafka")  # nobody sends meanwhile, but not all that was sent is scored
    job.stack.start_part("kafka")
    with feeding(job, name="late") as late:
        entries.append(job.promote(constant_model(6)))
        wait_until_scored_by(job, entries[-1].generation)
    sent.add(late)
    output = job.read_all(len(sent), deadline=PATIENT)
    require_all_once(output, sent, entries)
    require_one_generation_per_record(every_answer(job), sent)
    generations = {record.model.generation for record in output.scored.values()}
    assert not {corrupt.generation, narrow.generation} & generations
    assert job.state() == "RUNNING"


def _promote_corrupt(job: ScoringJob, constant_model: MakeModel) -> ChannelEntry:
    """A version whose file is damaged in the store, and in no cache yet."""
    data = constant_model(2, confidence=2 + time.time() % 1)
    manifest = job.registry.publish(job.pipeline.model, data, read_facts(data))
    job.registry.store.put(store_keys.blob(manifest.blob.digest), data[:-1] + b"!")
    entry = job.registry.promote(job.pipeline.model, manifest.version)
    wait_for(lambda: _refused(job, entry), "the refusal in the heartbeat", deadline=PATIENT)
    return entry


def _refused(job: ScoringJob, entry: ChannelEntry) -> bool:
    reports = [report for beat in job.registry.consumers.all() for report in beat.models]
    return any(report.refused_generation == entry.generation for report in reports)


def _minio_away(job: ScoringJob, *, seconds: float) -> None:
    """Longer than what is reserved and than a checkpoint; scoring goes on meanwhile."""
    job.stack.kill_part("minio")
    gone = datetime.now(UTC)
    try:
        job.read(
            lambda output: any(
                record.scored_at > gone + timedelta(seconds=seconds) for record in output.scored.values()
            ),
            committed=False,
            deadline=PATIENT,
        )
    finally:
        job.stack.start_part("minio")
