"""A job goes on from a savepoint that the last release under the former name made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ferryline.deploy.stack.local import LocalStack
from ferryline.registry.catalogue import Registry
from ferryline.streams.pipeline import load_pipeline
from tests.flink_scoring.harness import ScoringJob, digit
from tests.support import former_release


@pytest.fixture
def job(stack: LocalStack, tmp_path: Path) -> Iterator[ScoringJob]:
    pipeline = load_pipeline(former_release.PIPELINE)
    shutil.copytree(former_release.RECORDED / "data" / "registry", tmp_path / "registry")
    store = (tmp_path / "registry").as_uri()
    made = ScoringJob(stack, pipeline, former_release.PIPELINE, Registry.open(store), store)
    made.create_source()
    yield made
    made.end()


def test_only_what_came_after_the_savepoint_is_scored(job: ScoringJob) -> None:
    job.send({b"old-%d" % number: digit(number) for number in range(former_release.RECORDS)})
    job.send({b"new-%d" % number: digit(number) for number in range(20)})
    job.submit("--restore", former_release.SAVEPOINT.as_uri())
    output = job.read_all(20)
    assert {key.partition(b"-")[0] for key in output.seen} == {b"new"}
    assert len(output.scored) == 20
