"""What a running job shows of itself: in Flink's REST interface, to Prometheus, and in its records."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from deploy.stack.local import LocalStack
from model_runtime.facts import read_facts
from tests.flink_scoring.flink_metrics import job_metrics
from tests.flink_scoring.harness import ScoringJob, digit, make_job, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

MakeModel = Callable[..., bytes]


@pytest.fixture
def job(stack: LocalStack, pipeline_text: Callable[[str], str], tmp_path: Path) -> Iterator[ScoringJob]:
    name = f"digits-{uuid.uuid4().hex[:8]}"
    made = make_job(stack, pipeline_text(name) + 'shadow = "staging"\nshadow_share = 1.0\n', tmp_path)
    made.create_source()
    yield made
    made.cancel()


def stage(job: ScoringJob, data: bytes) -> int:
    """Publish a version and let the shadow's channel have it."""
    version = job.registry.publish(job.pipeline.model, data, read_facts(data)).version
    return job.registry.promote(job.pipeline.model, version, "staging").version


def has(job: ScoringJob, **expected: object) -> Callable[[], bool]:
    return lambda: expected.items() <= job_metrics(job).items()


def follows(job: ScoringJob, channel: str, version: int) -> bool:
    reports = [report for beat in job.registry.consumers.all() for report in beat.models]
    return any((report.channel, report.version) == (channel, version) for report in reports)


def test_metrics_say_what_happened(job: ScoringJob, constant_model: MakeModel) -> None:
    job.promote(constant_model(3))
    job.submit()
    job.send({b"first": digit(3)})
    job.read(lambda output: output.seen)
    shadow = stage(job, constant_model(4))
    wait_for(lambda: follows(job, "staging", shadow), "the shadow to be followed")
    good = {f"good-{number}".encode(): digit(number) for number in range(40)}
    unlabelled = {f"plain-{number}".encode(): digit(number, actual_y=None) for number in range(5)}
    bad = {b"broken": b"{", b"empty": None, b"broken too": b"["}
    job.send(good | unlabelled | bad)
    output = job.read(lambda output: len(output.seen) == 49)
    shadows = [record.shadow for record in output.scored.values() if record.shadow]
    assert {(each.prediction, each.agrees, each.model.version) for each in shadows} == {(4, False, shadow)}
    assert output.scored[b"first"].shadow is None, "nobody followed the shadow's channel yet"

    expected = {
        "sample_count": 46,
        "dead_letters": 3,
        "reason.invalid_json.dead_letters": 2,
        "reason.no_value.dead_letters": 1,
        "model_version": 1,
        "model_generation": 1,
        "seconds_behind": 0,
        "swap_count": 1,
        "refused_count": 0,
        # how many there is time for depends on the machine
        "shadow_compared": len(shadows),
        "shadow_skipped": len(good) + len(unlabelled) - len(shadows),
        "shadow_agreed": 0,
        "shadow_version": shadow,
        "metric_distribution_y": {"sum": 3 * 46, "count": 46, "min": 3, "max": 3},
    }
    wait_for(has(job, **expected), "the metrics of these records")
    shown = job_metrics(job)
    assert shown["batch_size"]["sum"] == 49
    assert 0 < shown["inference_us"]["min"] <= shown["inference_us_10_sec"]
    samples = 46 + _keep_meters_running(job)
    wait_for(lambda: job_metrics(job)["total_10_sec"] == 0, "the meters to run down")

    _prometheus_has(job, "sample_count", samples)
    _prometheus_has(job, 'reason_dead_letters{reason="invalid_json"', 2)
    _refuse(job, constant_model)
    job.send({b"after": digit(3)})
    wait_for(has(job, refused_count=1, model_version=1, sample_count=samples + 1), "the refusal")
    assert job_metrics(job)["seconds_behind"] >= 0
    assert job_metrics(job)["prediction_a"] == 100
    newest = job.promote(constant_model(4), allow_contract_change=True)
    wait_for(lambda: follows(job, "production", newest.version), "the swap")
    job.send({b"last": digit(4)})
    wait_for(has(job, swap_count=2, model_generation=newest.generation, seconds_behind=0), "the swap shown")
    assert job.restarts() == 0


def _keep_meters_running(job: ScoringJob) -> int:
    """Send records, half of them labelled otherwise, until the meters show both; how many were sent.

    Metrics come late on a busy machine: what was sent once may have left the last ten seconds by then.
    """
    sent = 0

    def shown() -> bool:
        nonlocal sent
        job.send({f"fresh-{sent + right}".encode(): digit(3 if right else 4) for right in (0, 1)})
        sent += 2
        meters = job_metrics(job)
        return bool(meters["total_10_sec"] > meters["right_10_sec"] > 0)

    wait_for(shown, "the meters")
    return sent


def _refuse(job: ScoringJob, constant_model: MakeModel) -> None:
    entry = job.promote(constant_model(5, width=63), allow_contract_change=True)

    def refused() -> bool:
        reports = [report for beat in job.registry.consumers.all() for report in beat.models]
        return any(report.refused_generation == entry.generation for report in reports)

    wait_for(refused, "the refusal in the heartbeat")


def _prometheus_has(job: ScoringJob, name: str, value: float) -> None:
    """The task manager's own page, as Prometheus reads it, shows a metric of this job."""
    plain, _, label = name.partition("{")

    def shown() -> bool:
        page = httpx.get(job.stack.addresses().flink_metrics, timeout=10).raise_for_status().text
        return any(
            line.startswith("flink_taskmanager_job_task_operator_online_ml_")
            and plain in line.split("{")[0]
            and label in line
            and f"{job.pipeline.name}".replace("-", "_") in line.replace("-", "_")
            and float(line.rsplit(" ", 1)[1]) == value
            for line in page.splitlines()
        )

    wait_for(shown, f"{name} = {value} for Prometheus")


def test_the_accuracy_gauge_and_the_canarys_share_are_those_of_the_records(
    job: ScoringJob, constant_model: MakeModel
) -> None:
    job.promote(constant_model(3))
    job.submit()
    job.send({b"first": digit(3)})
    job.read(lambda output: output.seen)
    second = job.registry.publish(job.pipeline.model, data := constant_model(5), read_facts(data)).version
    entry = job.registry.promote(job.pipeline.model, second, canary=50)

    def canary_serves() -> bool:
        reports = [report for beat in job.registry.consumers.all() for report in beat.models]
        return any(report.canary_version == second for report in reports)

    wait_for(canary_serves, "the canary")
    keys = {f"key-{number}".encode(): digit(3) for number in range(200)}
    job.send(keys)
    output = job.read(lambda output: len(output.seen) == 201)
    taken = sum(output.scored[key].model.version == second for key in keys)
    assert 0 < taken < len(keys)
    shown = wait_for(lambda: job_metrics(job) if has(job, sample_count=201)() else None, "the batch")
    assert shown["canary_percent"] == 50
    assert shown["model_generation"] == entry.generation
    # gauges stand still without records; the first record may have left the last ten seconds by then
    shares = {round(100 * taken / count) for count in (200, 201)}
    assert shown["canary_share"] in shares
    rights = {round(100 * (201 - taken) / 201), round(100 * (200 - taken) / 200)}
    assert shown["prediction_a"] in rights
