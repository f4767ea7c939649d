"""What a scrape shows, without the HTTP around it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ferryline.grpc_server.counters import KEPT_VERSIONS, ModelCounters
from ferryline.grpc_server.errors import InvalidRequestError
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.documents import Lineage, TrainingRecord, utc_now
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, infer, raw_request, scrape, wait_for, wait_until_version

LABELS = '{channel="production",model="m"}'


def test_requests_rows_and_failures_are_counted_by_version(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m")
    for rows in (1, 5):
        infer(models, raw_request("m", x=np.ones((rows, 4), np.float32)))
    with pytest.raises(InvalidRequestError):
        infer(models, raw_request("m", x=np.ones((1, 3), np.float32)))
    found, version = scrape(models), '{model="m",version="1"}'
    assert found[f"nv_inference_request_success{version}"] == 2
    assert found[f"nv_inference_request_failure{version}"] == 1
    assert found[f"nv_inference_count{version}"] == 6
    assert found[f"nv_inference_exec_count{version}"] == 2
    parts = sum(
        found[f"nv_inference_compute_{part}_duration_us{version}"] for part in ("input", "infer", "output")
    )
    assert 0 < parts <= found[f"nv_inference_request_duration_us{version}"] + 3


def test_a_model_shows_what_it_serves_and_how_old_it_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = utc_now()
    lineage = Lineage(topic="t", offsets=(), records=1, newest_event_time=newest)
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m")
    assert f"ferry_model_age_seconds{LABELS}" not in scrape(models)
    shop.publish("m", model_files.plus(2), TrainingRecord(lineage=lineage))
    wait_until_version(models.get("m"), 2)
    wait_for(lambda: models.get("m").default.counters.swaps == 2, "the swap")
    monkeypatch.setattr(
        "ferryline.grpc_server.metrics.time", SimpleNamespace(time=lambda: newest.timestamp() + 50)
    )
    found = scrape(models)
    assert found[f"ferry_model_ready{LABELS}"] == 1
    assert found[f"ferry_model_version{LABELS}"] == 2
    assert found[f"ferry_model_generation{LABELS}"] == 2
    assert found[f"ferry_swaps_total{LABELS}"] == 2
    assert found[f"ferry_model_age_seconds{LABELS}"] == pytest.approx(50)
    assert found[f"ferry_swap_seconds_total{LABELS}"] > 0
    assert found[f"ferry_follower_failing_seconds{LABELS}"] == 0


def test_a_refusal_is_counted_under_its_gate(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m")
    # a manifest that promises another contract than its file keeps
    shop.registry.publish("m", model_files.plus(2, features=5), read_facts(model_files.plus(2)))
    shop.registry.promote("m", 2)
    wait_for(lambda: bool(models.get("m").default.counters.refusals), "the refusal")
    found = scrape(models)
    assert found['ferry_refusals_total{channel="production",gate="contract",model="m"}'] == 1
    assert found[f"ferry_model_version{LABELS}"] == 1


def test_a_model_that_is_awaited_shows_as_not_ready(shop: Shop) -> None:
    found = scrape(shop.follow("m", wait=False))
    assert found[f"ferry_model_ready{LABELS}"] == 0
    assert f"ferry_model_version{LABELS}" not in found


def test_old_versions_leave_the_metrics() -> None:
    counters = ModelCounters()
    for version in range(1, 100):
        counters.of_version(version).success += 1
    assert sorted(counters.versions) == list(range(100 - KEPT_VERSIONS, 100))
    assert counters.of_version(99).success == 1


def test_what_is_warm_or_was_asked_for_of_late_stays_in_the_metrics() -> None:
    counters = ModelCounters(warm=frozenset({1}))
    serving, often = counters.of_version(1), counters.of_version(2)
    for version in range(3, 100):
        counters.of_version(version)
        assert counters.of_version(2) is often
    assert counters.versions[1] is serving
    assert sorted(counters.versions) == [1, 2, *range(101 - KEPT_VERSIONS, 100)]
