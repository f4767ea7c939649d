import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ferryline.model_runtime.facts import read_facts
from ferryline.registry import Registry
from ferryline.registry.errors import ConflictError, OutcomeUnknownError, StoreUnreachableError
from ferryline.registry.stores.memory import MemoryStore
from ferryline.streams.pipeline import Pipeline, PromotionMode, PromotionSpec
from ferryline.trainer import publisher as publisher_module
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import EXPORT_LABEL, RUN_LABEL, ExportedModel, export_candidate
from ferryline.trainer.delivery import Delivery
from ferryline.trainer.metrics import TrainerMetrics
from ferryline.trainer.publisher import Publisher
from ferryline.trainer.training import Training

BatchMaker = Callable[..., FetchedBatch]


class SlowLog:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, _level: str) -> Callable[..., None]:
        return lambda event, **fields: self.events.append((event, fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


class UnsteadyStore(MemoryStore):
    """A memory store that can be away, and can lose its answer after it wrote."""

    def __init__(self) -> None:
        super().__init__("unsteady")
        self.away = threading.Event()
        self.lose_answers_below: str | None = None

    def _check(self) -> None:
        if self.away.is_set():
            raise StoreUnreachableError("memory is away")

    def get(self, key: str) -> Any:
        self._check()
        return super().get(key)

    def list(self, prefix: str, *, after: str = "") -> Any:
        self._check()
        return super().list(prefix, after=after)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._check()
        written = super().put_if_absent(key, data)
        if self.lose_answers_below and self.lose_answers_below in key:
            self.lose_answers_below = None
            raise OutcomeUnknownError("the answer was lost")
        return written


@pytest.fixture
def store() -> UnsteadyStore:
    return UnsteadyStore()


@pytest.fixture
def registry(store: UnsteadyStore) -> Registry:
    return Registry(store, actor="trainer")


@pytest.fixture
def log() -> SlowLog:
    return SlowLog()


@pytest.fixture(scope="module")
def exports(digits: Pipeline, digit_values: list[bytes], make_batch: BatchMaker) -> list[ExportedModel]:
    training = Training(digits)
    training.progress.begin({0: 0})
    models = []
    for begin in range(0, 1500, 500):
        training.step(make_batch(digit_values[begin : begin + 500], first=begin))
        models.append(export_candidate(training))
    return models


def deliverer(
    registry: Registry, pipeline: Pipeline, model: ExportedModel, log: SlowLog, *, last: int | None = None
) -> Delivery:
    run = model.training.labels[RUN_LABEL]
    metrics = TrainerMetrics(pipeline.model)
    return Delivery(
        registry,
        pipeline,
        run=run,
        last_version=last,
        metrics=metrics,
        inspect=lambda data, _: read_facts(data),
        log=log,
    )


def test_versions_follow_each_other_and_serve(
    registry: Registry, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)
    manifests = [delivery.deliver(model) for model in exports]
    assert [manifest.version for manifest in manifests] == [1, 2, 3]
    assert [manifest.parent_version for manifest in manifests] == [None, 1, 2]
    history = list(registry.channel("digits").history())
    assert [(entry.generation, entry.version, entry.automatic) for entry in history] == [
        (1, 1, True), (2, 2, True), (3, 3, True),
    ]  # fmt: skip
    assert history[-1].reason.startswith("always: accuracy 0.")


def test_a_lost_answer_publishes_nothing_twice(
    registry: Registry, store: UnsteadyStore, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)
    store.lose_answers_below = "/versions/"
    with pytest.raises(OutcomeUnknownError):
        delivery.deliver(exports[0])
    assert delivery.deliver(exports[0]).version == 1
    assert registry.versions("digits").numbers() == [1]
    assert registry.channel("digits").require_head().version == 1


def test_a_lost_answer_promotes_nothing_twice(
    registry: Registry, store: UnsteadyStore, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)
    store.lose_answers_below = "/channels/"
    with pytest.raises(OutcomeUnknownError):
        delivery.deliver(exports[0])
    delivery.deliver(exports[0])
    assert [entry.version for entry in registry.channel("digits").history()] == [1]
    assert registry.versions("digits").numbers() == [1]


def test_a_restart_knows_the_versions_of_its_run_again(
    registry: Registry, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    # killed after publishing 2, before its state could say so
    first = deliverer(registry, digits, exports[0], log)
    first.deliver(exports[0])
    first.deliver(exports[1])
    restarted = deliverer(registry, digits, exports[0], log, last=1)
    assert restarted.deliver(exports[1]).version == 2
    assert restarted.deliver(exports[2]).parent_version == 2
    assert registry.versions("digits").numbers() == [1, 2, 3]


def test_versions_of_others_are_no_parents(
    registry: Registry, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    registry.publish("digits", exports[0].data, read_facts(exports[0].data))
    manifest = deliverer(registry, digits, exports[0], log).deliver(exports[0])
    assert (manifest.version, manifest.parent_version) == (2, None)


def test_a_hold_is_respected_and_told_once(
    registry: Registry, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)
    delivery.deliver(exports[0])
    registry.hold("digits", reason="looking into it")
    delivery.deliver(exports[1])
    delivery.deliver(exports[2])
    assert registry.channel("digits").require_head().version == 1
    assert [fields["why"] for fields in log.named("channel_held")] == ["looking into it"]
    registry.release("digits")
    newest = replace(
        exports[2],
        training=exports[2].training.model_copy(
            update={"labels": {RUN_LABEL: exports[2].training.labels[RUN_LABEL], EXPORT_LABEL: "later"}}
        ),
    )
    delivery.deliver(newest)
    assert registry.channel("digits").require_head().version == 4


def test_a_promotion_that_was_overtaken_is_decided_again(
    registry: Registry,
    digits: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)
    delivery.deliver(exports[0])
    promote, overtaken = registry.promote, itertools.count()

    def race(*arguments: Any, **options: Any) -> Any:
        if next(overtaken) == 0:  # a person rolls forward by hand between our look and our write
            promote("digits", 1, reason="by hand")
        return promote(*arguments, **options)

    monkeypatch.setattr(registry, "promote", race)
    delivery.deliver(exports[1])
    assert [(entry.generation, entry.version) for entry in registry.channel("digits").history()] == [
        (1, 1), (2, 1), (3, 2),
    ]  # fmt: skip


def test_endless_overtaking_is_given_up(
    registry: Registry,
    digits: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose(*_arguments: Any, **_options: Any) -> Any:
        raise ConflictError("someone else was first")

    monkeypatch.setattr(registry, "promote", lose)
    deliverer(registry, digits, exports[0], log).deliver(exports[0])
    assert log.named("not_promoted") == [{"version": 1, "reason": "the channel changes too often"}]


def test_a_worse_version_is_published_but_does_not_serve(
    registry: Registry, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    spec = PromotionSpec(mode=PromotionMode.NO_WORSE, min_records=0, max_drop=0.0)
    pipeline = digits.model_copy(update={"promotion": spec})
    delivery = deliverer(registry, pipeline, exports[0], log)
    delivery.deliver(exports[2])
    delivery.deliver(exports[0])  # learnt less, so it is worse
    assert registry.channel("digits").require_head().version == 1
    assert "below" in log.named("not_promoted")[0]["reason"]


def test_while_the_store_is_away_the_newest_export_wins(
    registry: Registry,
    store: UnsteadyStore,
    digits: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher_module, "FIRST_PAUSE", 0.01)
    metrics = TrainerMetrics("digits")
    delivery = deliverer(registry, digits, exports[0], log)
    publisher = Publisher(delivery, metrics, log=log)
    store.away.set()
    publisher.start()
    for model in exports:
        publisher.submit(model)
    assert not publisher.drain(0.1)
    store.away.clear()
    assert publisher.drain(10)
    publisher.stop(5)
    manifests = list(registry.versions("digits").all())
    assert [manifest.lineage.records for manifest in manifests if manifest.lineage] == [1500]
    assert publisher.published == (1, 1500)
    assert log.named("publish_failed")
    assert log.named("store_is_back")
    assert metrics.registry.get_sample_value(
        "ferry_trainer_publish_failures_total", {"model": "digits"}
    ) == len(log.named("publish_failed"))


def test_a_stop_ends_the_retries(
    registry: Registry, store: UnsteadyStore, digits: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    store.away.set()
    publisher = Publisher(deliverer(registry, digits, exports[0], log), TrainerMetrics("digits"), log=log)
    publisher.start()
    publisher.submit(exports[0])
    publisher.stop(5)
    store.away.clear()
    assert registry.versions("digits").numbers() == []
    assert publisher.published is None
