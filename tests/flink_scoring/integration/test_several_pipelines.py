"""Several pipelines in one Flink job: each has its own topics, model and transactions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from deploy.stack.local import LocalStack
from tests.flink_scoring.harness import ScoringJob, digit, make_job

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture
def pair(
    stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path
) -> Iterator[tuple[ScoringJob, ScoringJob]]:
    mark = uuid.uuid4().hex[:8]
    made = [make_job(stack, pipeline_text(f"digits-{which}-{mark}"), tmp_path) for which in ("a", "b")]
    first, second = made
    second.store, second.registry = first.store, first.registry
    for each in made:
        each.create_source()
    yield first, second
    first.cancel()


def test_one_job_scores_two_pipelines_apart(
    pair: tuple[ScoringJob, ScoringJob], constant_model: Callable[..., bytes]
) -> None:
    first, second = pair
    first.promote(constant_model(1))
    second.promote(constant_model(2))
    first.submit("--pipeline", str(second.file))
    second.job_id = first.job_id
    for job in pair:
        job.send({f"{number}".encode(): digit(number) for number in range(30)} | {b"bad": b"{"})
    for job, answer in zip(pair, (1, 2), strict=True):
        output = job.read_all(31)
        assert {record.prediction for record in output.scored.values()} == {answer}
        assert {record.model.name for record in output.scored.values()} == {job.pipeline.model}
        assert len(output.scored) == 30
        assert list(output.dead) == [b"bad"]
    rest = first.stack.addresses().flink
    name = httpx.get(f"{rest}/jobs/{first.job_id}", timeout=10).json()["name"]
    assert name == f"{first.pipeline.name}+{second.pipeline.name}-scoring"
    first.promote(constant_model(7))
    first.send({b"new": digit(0)})
    first.read(lambda output: b"new" in output.scored)
    assert first.restarts() == 0


def test_one_pipeline_given_twice_is_told_in_one_line(pair: tuple[ScoringJob, ScoringJob]) -> None:
    first, _ = pair
    result = first.run("--pipeline", str(first.file))
    assert result.returncode != 0
    lines = [line for line in (result.stdout + result.stderr).splitlines() if "error: " in line]
    assert len(lines) == 1
    assert f"two pipelines are called {first.pipeline.name}" in lines[0]
