"""One fault at a time; system/test_faults.py has them in one job."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ferryline.deploy.stack.local import LocalStack
from tests.flink_scoring.harness import ScoringJob, digit, make_job
from tests.flink_scoring.replays import feeding, require_all_once, wait_for_outputs

MakeModel = Callable[..., bytes]


@pytest.fixture
def job(fault_stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    made = make_job(fault_stack, pipeline_text(f"digits-{uuid.uuid4().hex[:8]}"), tmp_path)
    yield made
    made.end()


def test_a_killed_task_manager_costs_no_record_and_doubles_none(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source()
    entries = [job.promote(constant_model(1))]
    job.submit()
    with feeding(job) as sent:
        job.read(lambda output: len(output.seen) > 50)
        job.stack.kill_part("taskmanager")
        entries.append(job.promote(constant_model(2)))
        job.stack.start_part("taskmanager")
        job.read(lambda output: 2 in output.versions)
    require_all_once(job.read_all(len(sent)), sent, entries)
    assert job.restarts() > 0


def test_a_store_that_goes_away_stops_nothing(job: ScoringJob, constant_model: MakeModel) -> None:
    job.create_source()
    entries = [job.promote(constant_model(1))]
    job.submit()
    with feeding(job) as sent:
        job.read(lambda output: output.seen)
        job.stack.kill_part("minio")
        try:
            # checkpoints lie in the same MinIO, so what is scored now is committed when it is back
            wait_for_outputs(job, 500)
            assert job.state() == "RUNNING"
        finally:
            job.stack.start_part("minio")
        entries.append(job.promote(constant_model(2)))
        job.read(lambda output: 2 in output.versions)
    require_all_once(job.read_all(len(sent)), sent, entries)


# kafka-python leaves sockets open where a broker that is starting listens and does not answer yet
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
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
    output = job.read_all(len(early) + len(late))
    assert sorted(output.seen) == sorted([*early, *late])
