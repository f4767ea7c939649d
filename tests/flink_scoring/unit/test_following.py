from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.flink_scoring.following import FollowedModels, wait_for_model
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from ferryline.registry.errors import UsageError
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.stores.memory import MemoryStore
from ferryline.streams.pipeline import Pipeline
from tests.faulty_store import FaultyStore
from tests.support.waiting import DEADLINE, wait_for

URL = "memory"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pipeline(digits_pipeline: Callable[[], Pipeline]) -> Pipeline:
    return digits_pipeline()


def publish(registry: Registry, data: bytes, *, allow_contract_change: bool = False) -> None:
    manifest = registry.publish("digits", data, read_facts(data))
    registry.promote("digits", manifest.version, allow_contract_change=allow_contract_change)


def test_one_process_follows_a_model_once_and_until_its_last_user_leaves(
    registry: Registry, pipeline: Pipeline, constant_model: Callable[..., bytes]
) -> None:
    publish(registry, constant_model(1))
    models = FollowedModels(lambda _url: registry)
    first, second = models.acquire(URL, pipeline), models.acquire(URL, pipeline)
    assert first is second
    assert wait_for_model(first).version == 1
    wait_for(lambda: [beat.role for beat in registry.consumers.all()] == ["flink"], "a heartbeat")
    models.release(URL, pipeline)
    publish(registry, constant_model(2))
    wait_for(lambda: first.current is not None and first.current.version == 2, "the swap after one left")
    models.release(URL, pipeline)
    assert list(registry.consumers.all()) == []
    again = models.acquire(URL, pipeline)
    assert again is not first
    models.release(URL, pipeline)


def test_a_model_of_another_shape_is_refused_and_the_heartbeat_says_so(
    registry: Registry, pipeline: Pipeline, constant_model: Callable[..., bytes]
) -> None:
    models = FollowedModels(lambda _url: registry)
    follower = models.acquire(URL, pipeline)
    publish(registry, constant_model(1, width=63))

    def refused() -> bool:
        reports = [report for beat in registry.consumers.all() for report in beat.models]
        return [(report.refused_gate, report.refused_generation) for report in reports] == [("contract", 1)]

    wait_for(refused, "the refusal in the heartbeat")
    assert follower.current is None
    publish(registry, constant_model(4), allow_contract_change=True)
    assert wait_for_model(follower).version == 2
    models.release(URL, pipeline)


def test_a_store_that_is_down_at_the_start_holds_records_back_and_is_named(
    pipeline: Pipeline,
    constant_model: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ferryline.flink_scoring import following
    from ferryline.flink_scoring.worker_log import log_to_task_manager

    log_to_task_manager()
    monkeypatch.setattr(following, "_FIRST_COMPLAINT", 0.05)
    store = FaultyStore(MemoryStore())
    publish(Registry(store), constant_model(6))
    store.down = True
    models = FollowedModels(lambda _url: Registry(store))
    follower = models.acquire(URL, pipeline)
    versions: list[int] = []
    waiting = threading.Thread(target=lambda: versions.append(wait_for_model(follower).version))
    waiting.start()
    wait_for(lambda: "no answer" in caplog.text, "the line about what is missing")
    assert versions == []
    store.down = False
    waiting.join(DEADLINE)
    assert versions == [1]
    models.release(URL, pipeline)


def test_a_worker_without_keys_does_not_run_a_job_that_requires_signatures(pipeline: Pipeline) -> None:
    models = FollowedModels()
    with pytest.raises(UsageError, match="FERRY_SIGNATURES=required needs FERRY_TRUSTED_KEYS"):
        models.acquire("memory://x", pipeline, signatures=SignaturePolicy.REQUIRED)
