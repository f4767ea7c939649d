"""The real job on the real stack: every record comes out once, scored by the version that it names."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from ferryline.deploy.stack.local import LocalStack
from ferryline.registry.documents import ChannelEntry
from tests.flink_scoring.harness import ScoringJob, digit, make_job
from tests.flink_scoring.reading import Output
from tests.flink_scoring.replays import feeding
from tests.support.waiting import wait_for

pytestmark = pytest.mark.early

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
    made.end()


def test_every_record_comes_out_once_by_the_version_it_names_until_an_orderly_stop(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.create_source(partitions=2)
    first = {f"early-{number}".encode(): digit(number) for number in range(20)}
    job.send(first)
    job.submit("--parallelism", "2")
    wait_for(lambda: _says_that_records_wait(job), "the warning that there is no model", pause=0.5)
    assert job.reader(committed=False).read_to_end().seen == []  # nothing is lost, nothing dies

    entries = [job.promote(constant_model(1))]
    spoilt = {reason.encode(): value for reason, value in BAD.items()}
    job.send(spoilt, headers=[("trace", b"7")])
    behind: dict[bytes, ChannelEntry] = {}
    with feeding(job, name="good") as sent:
        for answer in (2, 3, 4):
            newest = entries[-1].version
            job.read(lambda output, newest=newest: newest in output.versions)
            entries.append(job.promote(constant_model(answer)))
            job.wait_until_serving(entries[-1].version, workers=2)
            keys = [f"behind-{answer}-{number}".encode() for number in range(20)]
            job.send({key: digit(number) for number, key in enumerate(keys)})
            behind |= dict.fromkeys(keys, entries[-1])
        job.read(lambda output: 4 in output.versions)
    everything = [*first, *spoilt, *behind, *sent.places]
    output = job.read_all(len(everything))
    assert sorted(output.seen) == sorted(everything)
    _require_identity(output, entries)
    for key, entry in behind.items():
        assert output.scored[key].model.generation >= entry.generation
    _require_letters(job, output, spoilt)
    assert job.calls("ferry_score") == 1, "Flink would call the function more than once per record"
    assert job.restarts() == 0
    job.cancel()
    wait_for(lambda: not job.reports(), "the heartbeat to go", pause=0.1)


def _says_that_records_wait(job: ScoringJob) -> bool:
    """Whether a task manager's log, as Flink's page shows it, says so of this model."""
    flink = job.stack.addresses().flink
    managers = httpx.get(f"{flink}/taskmanagers").raise_for_status().json()["taskmanagers"]
    logs = (httpx.get(f"{flink}/taskmanagers/{each['id']}/log").raise_for_status().text for each in managers)
    words = ("no model yet, records wait in Kafka", f"model={job.pipeline.model} ")
    return any(all(word in line for word in words) for log in logs for line in log.splitlines())


def _require_identity(output: Output, entries: list[ChannelEntry]) -> None:
    """Each prediction is that of the version on its stamp, and the stamp is complete."""
    by_generation = {entry.generation: entry for entry in entries}
    for record in output.scored.values():
        entry = by_generation[record.model.generation]
        assert (record.model.name, record.model.version) == (entry.model, entry.version)
        assert record.model.digest == entry.blob_digest
        assert record.prediction == entry.version  # each version answers with its own number


def _require_letters(job: ScoringJob, output: Output, spoilt: dict[bytes, bytes | None]) -> None:
    """Each bad record is a dead letter as it was, and says why and where it lay."""
    assert output.dead.keys() == spoilt.keys()
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


def test_what_cannot_work_is_told_in_one_line_before_anything_runs(job: ScoringJob) -> None:
    job.create_source()
    result = job.run(flink=("-Dpython.execution-mode=thread",))
    assert result.returncode != 0
    lines = [line for line in (result.stdout + result.stderr).splitlines() if "error: " in line]
    assert len(lines) == 1
    assert all(word in lines[0] for word in ("thread", "pemja", "process"))
    assert 'File "' not in result.stdout + result.stderr, "a Python traceback was shown"
