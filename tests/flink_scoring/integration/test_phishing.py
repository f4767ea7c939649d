"""The second pipeline through every real part: feed, trainer, registry on MinIO, scoring job."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.cli import PIPELINES
from deploy.stack.local import LocalStack
from tests.flink_scoring.harness import ScoringJob, make_job

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RECORDS = 1250


@pytest.fixture
def job(stack: LocalStack, tmp_path: Path) -> Iterator[ScoringJob]:
    name = f"phishing-{uuid.uuid4().hex[:8]}"
    text = (PIPELINES / "phishing.toml").read_text()
    for own in ('"phishing"', '"ml_training_data"', '"phishing_predict"'):
        text = text.replace(own, f'"{name}.{own.strip(chr(34))}"')
    made = make_job(stack, text, tmp_path)
    yield made
    made.cancel()


def run(job: ScoringJob, name: str, *arguments: str) -> None:
    environ = {**job.stack.addresses().environ(), "FERRY_STORE": job.store}
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_phishing_is_learnt_and_scored_with_true_and_false(job: ScoringJob, tmp_path: Path) -> None:
    topic = job.pipeline.source.topic
    run(
        job,
        "ferry-feed",
        "phishing",
        "--topic",
        topic,
        "--count",
        str(RECORDS),
        "--rate",
        "2000",
        "--seed",
        "1",
    )
    run(job, "ferry-trainer", "run", str(job.file), "--state", str(tmp_path), "--until-records", str(RECORDS))
    head = job.registry.channel(job.pipeline.model).require_head()
    manifest = job.registry.versions(job.pipeline.model).get(head.version)
    assert manifest.classes == (False, True)
    assert manifest.lineage is not None
    assert manifest.lineage.records <= RECORDS
    job.submit()
    # the feed's keys come again with every pass, so records are counted and not told apart
    scored = job.read(lambda output: len(output.seen) >= RECORDS).scored
    assert {record.prediction for record in scored.values()} == {True, False}
    right = [record.correct for record in scored.values()]
    assert sum(filter(None, right)) / len(right) > 0.8
    assert {record.model.version for record in scored.values()} == {head.version}
