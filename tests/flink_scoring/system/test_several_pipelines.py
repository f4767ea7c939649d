"""Several pipelines in one Flink job: each has its own topics, model, transactions and metrics."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import httpx
import pytest

from ferryline.deploy.stack.local import LocalStack
from ferryline.registry import keys as store_keys
from ferryline.registry.canary import CanarySplit
from ferryline.registry.documents import ChannelEntry
from tests.flink_scoring.flink_metrics import has, job_metrics
from tests.flink_scoring.harness import ScoringJob, digit, make_job, one_job
from tests.flink_scoring.replays import feeding, require_all_once
from tests.support.waiting import wait_for

pytestmark = pytest.mark.early

MakeModel = Callable[..., bytes]
SHADOW = 'shadow = "staging"\nshadow_share = 1.0\n'


@pytest.fixture(scope="module")
def jobs(
    stack: LocalStack,
    pipeline_text: Callable[[str], str],
    own_settings: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, ScoringJob]]:
    """The pipelines of one running job, without models."""
    mark, folder = uuid.uuid4().hex[:8], tmp_path_factory.mktemp("pipelines")
    made: dict[str, ScoringJob] = {}
    for name, more in (("a", ""), ("b", ""), ("refusing", ""), ("canary", ""), ("metrics", SHADOW)):
        text = pipeline_text(f"digits-{name}-{mark}") + more
        made[name] = make_job(stack, text, folder, store=made["a"].store if made else None)
        made[name].create_source()
    with one_job(made) as running:
        yield running


def test_one_job_scores_two_pipelines_apart(
    jobs: Mapping[str, ScoringJob], constant_model: MakeModel
) -> None:
    first, second = jobs["a"], jobs["b"]
    pair = (first, 1), (second, 2)
    for job, answer in pair:
        job.promote(constant_model(answer))
        job.send({f"{number}".encode(): digit(number) for number in range(30)} | {b"bad": b"{"})
    for job, answer in pair:
        output = job.read_all(31)
        assert {record.prediction for record in output.scored.values()} == {answer}
        assert {record.model.name for record in output.scored.values()} == {job.pipeline.model}
        assert len(output.seen) == 31
        assert len(output.scored) == 30
        assert list(output.dead) == [b"bad"]
    assert first.ask("")["name"] == "+".join(job.pipeline.name for job in jobs.values()) + "-scoring"
    first.promote(constant_model(7))
    first.wait_until_serving(2)
    for job, _ in pair:
        job.send({b"new": digit(0)})
    assert first.read(lambda output: b"new" in output.scored).scored[b"new"].prediction == 7
    assert second.read(lambda output: b"new" in output.scored).scored[b"new"].prediction == 2
    assert first.restarts() == 0


# --- models -----------------------------------------------------------------------------------------


def test_a_bad_model_is_refused_where_people_look_and_the_last_good_one_goes_on(
    jobs: Mapping[str, ScoringJob], constant_model: MakeModel
) -> None:
    job = jobs["refusing"]
    entries = [job.promote(constant_model(1))]
    with feeding(job) as sent:
        job.read(lambda output: output.seen)
        # a file that no cache has yet, so that the damaged one must be fetched
        _promote_corrupt(job, constant_model(2, confidence=2 + time.time() % 1))
        narrow = job.promote(constant_model(3, width=63), allow_contract_change=True)
        wait_for(lambda: job.refuses(narrow, "contract"), "the refusal in the heartbeat")
        assert {report.version for report in job.reports()} == {1}
        before = len(job.reader().read_to_end().seen)
        job.read(lambda output: len(output.seen) > before)
        entries.append(job.promote(constant_model(4), allow_contract_change=True))
        job.read(lambda output: 4 in output.versions)
    output = job.read_all(len(sent))
    assert output.versions == {1, 4}
    require_all_once(output, sent, entries)
    assert job.restarts() == 0


def _promote_corrupt(job: ScoringJob, data: bytes) -> ChannelEntry:
    """A version whose file is damaged in the store."""
    version = job.publish(data)
    manifest = job.registry.versions(job.pipeline.model).get(version)
    job.registry.store.put(store_keys.blob(manifest.blob.digest), data[:-1] + b"!")
    entry = job.registry.promote(job.pipeline.model, version)
    wait_for(lambda: job.refuses(entry, "digest"), "the refusal in the heartbeat")
    assert {report.version for report in job.reports()} == {1}
    return entry


def test_a_canary_gets_its_share_of_keys_until_it_is_taken_back(
    jobs: Mapping[str, ScoringJob], constant_model: MakeModel
) -> None:
    job = jobs["canary"]
    job.promote(constant_model(1))
    before = {b"before": digit(1)}
    job.send(before)  # a Python worker starts with its first record
    job.read(lambda output: output.seen)
    model, second = job.pipeline.model, job.publish(constant_model(2))
    canary = job.registry.promote(model, second, canary=40)
    wait_for(lambda: [each.canary_version for each in job.reports()] == [second], "the canary to serve")
    during = {f"during-{number}".encode(): digit(1) for number in range(200)}
    job.send(during)
    output = job.read(lambda output: len(output.seen) > len(during))
    _require_gauges_of(job, canary, sum(output.scored[key].model.version == second for key in during))

    back = job.registry.rollback(model)
    wait_for(lambda: [each.generation for each in job.reports()] == [back.generation], "the rollback")
    after = {f"after-{number}".encode(): digit(number) for number in range(50)}
    job.send(after)
    output = job.read_all(1 + len(during) + len(after))
    assert sorted(output.seen) == sorted([*before, *during, *after])
    split = CanarySplit(f"{model}:{job.pipeline.channel}", second, 40)
    for key, record in output.scored.items():
        if key not in before:
            assert record.model.generation == (canary if key in during else back).generation
        taken = record.model.generation == canary.generation and split.takes(key)
        assert (record.prediction, record.model.version) == ((2, second) if taken else (1, 1))
    by_version = Counter(str(record.model.version) for record in output.scored.values())
    counts = dict(sorted(by_version.items()))
    assert counts["2"] >= sum(map(split.takes, during)) > 0
    wait_for(lambda: [each.answered for each in job.reports()] == [counts], "the counts by version")


def _require_gauges_of(job: ScoringJob, canary: ChannelEntry, taken: int) -> None:
    """The gauges show the canary's share of 201 records, and the accuracy: it answers them wrongly."""
    assert 0 < taken < 200
    shown = wait_for(lambda: job_metrics(job) if has(job, sample_count=201)() else None, "the batch")
    assert shown["canary_percent"] == 40
    assert shown["model_generation"] == canary.generation
    # gauges stand still without records; the first record may have left the last ten seconds by then
    assert shown["canary_share"] in {round(100 * taken / count) for count in (200, 201)}
    assert shown["prediction_a"] in {round(100 * (count - taken) / count) for count in (200, 201)}


# --- metrics ----------------------------------------------------------------------------------------


def test_metrics_say_what_happened(jobs: Mapping[str, ScoringJob], constant_model: MakeModel) -> None:
    job = jobs["metrics"]
    job.promote(constant_model(3))
    job.send({b"first": digit(3)})
    job.read(lambda output: output.seen)
    shadow = job.registry.promote(job.pipeline.model, job.publish(constant_model(4)), "staging").version
    job.wait_until_serving(shadow, channel="staging")
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
    wait_for(has(job, **expected), "the metrics of these records", pause=0.5)
    shown = job_metrics(job)
    assert shown["batch_size"]["sum"] == 49
    assert 0 < shown["inference_us"]["min"] <= shown["inference_us_10_sec"]
    samples = 46 + _keep_meters_running(job)
    wait_for(lambda: job_metrics(job)["total_10_sec"] == 0, "the meters to run down", pause=0.5)

    _require_for_prometheus(job, "sample_count", samples)
    _require_for_prometheus(job, 'reason_dead_letters{reason="invalid_json"', 2)
    narrow = job.promote(constant_model(5, width=63), allow_contract_change=True)
    wait_for(lambda: job.refuses(narrow), "the refusal in the heartbeat")
    job.send({b"after": digit(3)})
    refused = has(job, refused_count=1, model_version=1, sample_count=samples + 1)
    wait_for(refused, "the refusal", pause=0.5)
    assert job_metrics(job)["seconds_behind"] >= 0
    assert job_metrics(job)["prediction_a"] == 100
    newest = job.promote(constant_model(4), allow_contract_change=True)
    job.wait_until_serving(newest.version)
    job.send({b"last": digit(4)})
    swapped = has(job, swap_count=2, model_generation=newest.generation, seconds_behind=0)
    wait_for(swapped, "the swap shown", pause=0.5)
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

    wait_for(shown, "the meters", pause=0.5)
    return sent


def _require_for_prometheus(job: ScoringJob, name: str, value: float) -> None:
    """The task manager's own page, as Prometheus reads it, shows a metric of this pipeline."""
    plain, _, label = name.partition("{")
    _, source = job.named("ferry_source")

    def is_shown() -> bool:
        page = httpx.get(job.stack.addresses().flink_metrics).raise_for_status().text
        return any(
            line.startswith(f"flink_taskmanager_job_task_operator_online_ml_{plain}")
            and all(word in line for word in (label, source, job.job_id))
            and float(line.rsplit(" ", 1)[1]) == value
            for line in page.splitlines()
        )

    wait_for(is_shown, f"{name} = {value} for Prometheus", pause=0.5)
