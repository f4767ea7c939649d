"""Through the real job: what died of its model is scored once when it is replayed under a better one."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.stack.local import LocalStack
from tests.flink_scoring.harness import ScoringJob, digit, make_job, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def job(stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    made = make_job(stack, pipeline_text(f"digits-{uuid.uuid4().hex[:8]}"), tmp_path)
    yield made
    made.cancel()


def replay(job: ScoringJob, *arguments: str) -> dict[str, int]:
    line = [sys.executable, "-m", "flink_scoring.dead_letters.cli", "replay", str(job.file), *arguments]
    ended = subprocess.run(
        [*line, "--kafka", job.kafka, "-o", "json"], capture_output=True, timeout=90, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return {item["outcome"]: item["letters"] for item in json.loads(ended.stdout)["outcomes"]}


def harmless_until(job: ScoringJob, version: int) -> list[bytes]:
    """Sends records that any model can take until that version scores one; gives their keys."""
    keys: list[bytes] = []

    def scored_by_it() -> bool:
        key = f"harmless-{len(keys)}".encode()
        keys.append(key)
        job.send({key: digit(1)})
        output = job.read(lambda output: key in output.scored)
        return output.scored[key].model.version == version

    wait_for(scored_by_it, f"version {version} to serve")
    return keys


def headers_of(message: Any) -> dict[str, bytes]:
    return dict(message.headers)


def test_what_died_of_its_model_is_scored_once_after_a_replay(
    job: ScoringJob, picky_model: bytes, constant_model: Callable[..., bytes]
) -> None:
    job.create_source(partitions=2)
    job.promote(picky_model)  # cannot be run on a first feature above 9
    records = {f"r{number}".encode(): digit(number) for number in range(17)}
    fatal = {key for number, key in enumerate(records) if number > 9}
    job.send(records, headers=[("trace", b"7")])
    job.submit("--parallelism", "2")
    first = job.read_all(len(records))
    assert set(first.dead) == fatal
    letter = headers_of(first.dead[min(fatal)])
    assert letter["ferry.timestamp"].startswith(b"20")
    assert len(letter["ferry.timestamp"]) == len("2026-01-02 03:04:05.678")

    assert replay(job) == {"replayed": len(fatal)}  # nothing is mended: they die again, and say so
    again = job.read_all(len(records) + len(fatal))
    assert all(headers_of(again.dead[key])["ferry.replayed"] == b"1" for key in fatal)
    assert all(headers_of(again.dead[key])["trace"] == b"7" for key in fatal)

    better = job.promote(constant_model(3), allow_contract_change=True)
    probes = harmless_until(job, better.version)
    assert replay(job)["replayed"] == len(fatal)
    output = job.read_all(len(records) + 2 * len(fatal) + len(probes))
    counted = Counter(output.seen)
    assert all(counted[key] == 3 for key in fatal)  # dead twice, scored once
    assert all(output.scored[key].model.version == better.version for key in fatal)
    assert replay(job).get("replayed", 0) == 0
