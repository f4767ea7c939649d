"""Faults while records flow: none is lost, none comes twice, each is scored by one version however often."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ferryline.deploy.stack.local import LocalStack
from ferryline.registry import keys as store_keys
from ferryline.registry.documents import ChannelEntry
from tests.flink_scoring.flink_metrics import job_metrics
from tests.flink_scoring.harness import ScoringJob, make_job
from tests.flink_scoring.replays import (
    Sent,
    every_answer,
    feeding,
    require_all_once,
    require_one_generation_per_record,
    send_to,
    stop_with_savepoint,
    wait_for_outputs,
    wait_until_scored_by,
)
from tests.support.waiting import wait_for

pytestmark = pytest.mark.early

MakeModel = Callable[..., bytes]


@pytest.fixture
def job(fault_stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    text = pipeline_text(f"faults-{uuid.uuid4().hex[:8]}")
    latest = text.replace("[source]", '[source]\nstart = "latest"')  # a fault must not choose it again
    made = make_job(fault_stack, latest, tmp_path)
    yield made
    made.end()


# kafka-python leaves sockets open where a broker that is starting listens and does not answer yet
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_outlives_its_task_manager_bad_models_and_servers_that_come_and_go(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source(partitions=2)
    entries = [job.promote(constant_model(1))]
    # its own checkpoints are far between: those that count here are asked for
    job.submit("--parallelism", "2", "--checkpoint-seconds", "250")
    sent = _kill_the_task_manager_in_a_swap(job, constant_model, entries)
    refused = []
    with feeding(job, name="bad", poison_every=20) as during:
        refused += [_promote_corrupt(job, constant_model), _promote_narrow(job, constant_model)]
        entries.append(job.promote(constant_model(7), allow_contract_change=True))
        entries.append(job.promote(constant_model(8)))  # two in one second
        wait_until_scored_by(job, entries[-1].generation)
        _take_minio_away(job)
    sent.add(during)
    job.stack.kill_part("kafka")  # nobody sends meanwhile, but not all that was sent is scored
    job.stack.start_part("kafka")
    with feeding(job, name="late") as late:
        entries.append(job.promote(constant_model(9)))
        wait_until_scored_by(job, entries[-1].generation)
    sent.add(late)
    output = job.read_all(len(sent), ask_for_checkpoints=True)
    require_all_once(output, sent, entries)
    require_one_generation_per_record(every_answer(job), sent)
    generations = {record.model.generation for record in output.scored.values()}
    assert not {entry.generation for entry in refused} & generations
    assert job.state() == "RUNNING"


def _kill_the_task_manager_in_a_swap(
    job: ScoringJob, constant_model: MakeModel, entries: list[ChannelEntry]
) -> Sent:
    """What was scored since the checkpoint is scored again, by the versions of before."""
    with feeding(job, name="swap") as sent:
        wait_for_outputs(job, 100)
        entries.append(job.promote(constant_model(2)))
        wait_until_scored_by(job, entries[-1].generation)
        job.complete_checkpoint()
        wait_for_outputs(job, 100)
        entries.append(job.promote(constant_model(3)))
        wait_until_scored_by(job, entries[-1].generation)
        job.stack.kill_part("taskmanager")
        entries.append(job.promote(constant_model(4)))
        job.stack.start_part("taskmanager")
        wait_until_scored_by(job, entries[-1].generation)
    assert job.restarts() > 0
    assert require_one_generation_per_record(every_answer(job), sent) > 0, "nothing was replayed"
    return sent


def _promote_corrupt(job: ScoringJob, constant_model: MakeModel) -> ChannelEntry:
    """A version whose file is damaged in the store, and in no cache yet."""
    data = constant_model(5, confidence=2 + time.time() % 1)
    version = job.publish(data)
    manifest = job.registry.versions(job.pipeline.model).get(version)
    job.registry.store.put(store_keys.blob(manifest.blob.digest), data[:-1] + b"!")
    entry = job.registry.promote(job.pipeline.model, version)
    wait_for(lambda: job.refuses(entry), "the refusal in the heartbeat")
    return entry


def _promote_narrow(job: ScoringJob, constant_model: MakeModel) -> ChannelEntry:
    entry = job.promote(constant_model(6, width=63), allow_contract_change=True)
    wait_for(lambda: job.refuses(entry), "the refusal in the heartbeat")
    return entry


def _take_minio_away(job: ScoringJob) -> None:
    """Until what was reserved is used up, and a checkpoint that began meanwhile waits; scoring goes on."""
    before = _unrecorded(job)
    job.stack.kill_part("minio")
    try:
        checkpoint = job.trigger_checkpoint()
        wait_for(lambda: _unrecorded(job) > before, "records beyond what is reserved", pause=0.5)
        wait_for_outputs(job, 100)
        assert job.checkpoint_outcome(checkpoint) != "completed"
        assert job.state() == "RUNNING"
    finally:
        job.stack.start_part("minio")


def _unrecorded(job: ScoringJob) -> float:
    return float(str(job_metrics(job).get("unrecorded", 0)))


def test_one_command_brings_a_job_back_from_its_checkpoint_and_from_its_savepoint(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source(partitions=3)
    entries = [job.promote(constant_model(1))]
    job.submit("--parallelism", "1", "--restore", "newest")  # nothing to restore yet: it begins anew
    late = Sent()
    with feeding(job, partitions=(0, 1)) as sent:
        job.read(lambda output: len(output.seen) > 100)
        job.stack.kill_part("jobmanager")
        late.add(send_to(job, 2, 10, name="idle"))  # a partition that nothing was read from so far
        entries.append(job.promote(constant_model(2)))
        job.stack.start_part("jobmanager")
        job.submit("--parallelism", "1", "--restore", "newest")
        wait_until_scored_by(job, entries[-1].generation)
        assert f"/checkpoints/{job.pipeline.name}-scoring/" in job.restored_from()

        savepoint = stop_with_savepoint(job)
        assert savepoint.startswith("s3://")
        # of two partitions, one may have a backlog from before the kill that nobody scored again yet
        committed, written = job.reader().read_to_end().seen, every_answer(job)
        saved = {key: len(written[key]) for key in committed}
        assert len(saved) > 100
        job.add_partitions(4)
        late.add(send_to(job, 3, 10, name="added"))
        entries.append(job.promote(constant_model(3)))
        job.submit("--parallelism", "2", "--restore", "newest")
        wait_until_scored_by(job, entries[-1].generation)
        assert job.restored_from() == savepoint
    sent.add(late)
    output = job.read_all(len(sent))
    require_all_once(output, sent, entries)
    written = every_answer(job)
    require_one_generation_per_record(written, sent)
    again = {key for key, times in saved.items() if len(written[key]) > times}
    assert not again, "a savepoint needs no replay"
