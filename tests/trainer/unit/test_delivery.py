import errno
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ferryline.model_runtime.facts import read_facts
from ferryline.registry import Registry
from ferryline.registry.errors import (
    ConflictError,
    OutcomeUnknownError,
    RefusedError,
    StoreUnreachableError,
    UsageError,
)
from ferryline.registry.keys import versions as versions_key
from ferryline.registry.stores.memory import MemoryStore
from ferryline.streams.pipeline import Pipeline, PromotionMode, PromotionSpec
from ferryline.trainer import publisher as publisher_module
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import EXPORT_LABEL, RUN_LABEL, ExportedModel, export_candidate
from ferryline.trainer.delivery import Delivery
from ferryline.trainer.errors import PublisherEndedError
from ferryline.trainer.metrics import TrainerMetrics
from ferryline.trainer.positions import Placement
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
    training.place(Placement(offsets={0: 0}))
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


def later(model: ExportedModel, number: int, accuracy: float = 0.9) -> ExportedModel:
    """The same file as another export of the same run, of some accuracy."""
    evaluation = model.training.evaluation
    assert evaluation is not None
    labels = {RUN_LABEL: model.training.labels[RUN_LABEL], EXPORT_LABEL: f"later-{number}"}
    changed = evaluation.model_copy(update={"metrics": {**evaluation.metrics, "accuracy": accuracy}})
    training = model.training.model_copy(update={"labels": labels, "evaluation": changed})
    return replace(model, training=training, accuracy=accuracy)


@pytest.fixture
def careful(digits: Pipeline) -> Pipeline:
    """The policy compares accuracies."""
    spec = PromotionSpec(mode=PromotionMode.NO_WORSE, min_records=0, max_drop=0.02)
    return digits.model_copy(update={"promotion": spec})


def spoil(store: MemoryStore, key: str, how: str) -> None:
    store.delete(key)
    if how == "damaged":
        store.put(key, b"{not json")


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_what_serves_and_cannot_be_read_does_not_stand_in_the_way(
    registry: Registry,
    store: UnsteadyStore,
    careful: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    how: str,
) -> None:
    deliverer(registry, careful, exports[0], log).deliver(exports[0])
    # another one's version comes after it, as otherwise its number would be given again
    registry.publish("digits", exports[0].data, read_facts(exports[0].data))
    spoil(store, versions_key("digits") + "0000000001.json", how)
    restarted = deliverer(registry, careful, exports[0], log, last=1)
    assert restarted.deliver(later(exports[1], 1, accuracy=0.1)).version == 3
    assert registry.channel("digits").require_head().version == 3
    # it is read again each time, as it may have come back; it is told once
    assert len(log.named("serving_unreadable")) == 1
    assert "version 1 of digits:production" in log.named("serving_unreadable")[0]["what"]


def test_another_manifest_than_was_promoted_says_nothing(
    registry: Registry, store: UnsteadyStore, careful: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    delivery = deliverer(registry, careful, exports[0], log)
    delivery.deliver(later(exports[0], 1, accuracy=0.99))
    key = versions_key("digits") + "0000000001.json"
    manifest = registry.versions("digits").get(1)
    store.delete(key)
    store.put(key, manifest.model_copy(update={"actor": "someone"}).encode())
    fresh = deliverer(registry, careful, exports[0], log, last=1)
    fresh.deliver(later(exports[1], 2, accuracy=0.5))
    assert registry.channel("digits").require_head().version == 2
    assert "is not the one that was promoted" in log.named("serving_unreadable")[0]["error"]


def test_a_canary_is_told_once_and_tried_once(
    registry: Registry,
    digits: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)
    delivery.deliver(exports[0])
    registry.publish("digits", exports[1].data, read_facts(exports[1].data))
    registry.promote("digits", 2, canary=10)
    promote, tries = registry.promote, itertools.count()

    def counted(*arguments: Any, **options: Any) -> Any:
        next(tries)
        return promote(*arguments, **options)

    monkeypatch.setattr(registry, "promote", counted)
    delivery.deliver(exports[1])
    delivery.deliver(exports[2])
    assert next(tries) == 0
    assert log.named("not_promoted") == []
    told = log.named("canary_running")
    assert [(fields["canary"], fields["percent"]) for fields in told] == [(2, 10)]
    assert "ferry rollback digits:production" in told[0]["remedy"]
    registry.rollback("digits")
    registry.release("digits")
    delivery.deliver(later(exports[2], 1))
    assert registry.channel("digits").require_head().version == 5


def test_many_small_steps_do_not_lead_down(
    registry: Registry, careful: Pipeline, exports: list[ExportedModel], log: SlowLog
) -> None:
    for number in range(30):
        # a trainer that starts anew for each version remembers nothing
        delivery = deliverer(registry, careful, exports[0], log, last=number)
        delivery.deliver(later(exports[0], number, accuracy=0.98 - number * 0.019))
    assert registry.channel("digits").require_head().version == 3
    assert (
        "below the 0.9800 of version 1, the best that served lately" in log.named("not_promoted")[0]["reason"]
    )
    for _ in range(careful.promotion.best_of):  # nor do holds fill the window
        registry.hold("digits")
        registry.release("digits")
    delivery.deliver(later(exports[0], 98, accuracy=0.98 - 3 * 0.019))
    assert registry.channel("digits").require_head().version == 3
    # a person may set a new standard
    registry.promote("digits", 10)
    delivery.deliver(later(exports[0], 99, accuracy=0.98 - 10 * 0.019))
    assert registry.channel("digits").require_head().version == 32


def test_a_look_reads_only_what_is_new(
    registry: Registry,
    store: UnsteadyStore,
    careful: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = deliverer(registry, careful, exports[0], log)
    for number in range(40):
        delivery.deliver(later(exports[0], number))
    read: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda key: (read.append(key), get(key))[1])

    def entries_read() -> set[str]:
        found = {key for key in read if "/channels/" in key or "/versions/" in key}
        read.clear()
        return found

    delivery.deliver(later(exports[0], 40))
    assert len(entries_read()) <= 6
    deliverer(registry, careful, exports[0], log, last=41).deliver(later(exports[0], 41))
    assert 20 <= len(entries_read()) <= 2 * careful.promotion.best_of + 6


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


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        MemoryError(),
        RuntimeError("unheard of"),
        TypeError(),
    ],
    ids=["disk", "memory", "unknown", "bug"],
)
def test_a_fault_of_the_moment_is_tried_again(
    registry: Registry,
    digits: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    monkeypatch.setattr(publisher_module, "FIRST_PAUSE", 0.001)
    metrics = TrainerMetrics("digits")
    delivery = deliverer(registry, digits, exports[0], log)
    deliver, left = delivery.deliver, iter([error, error])

    def sometimes(model: ExportedModel) -> Any:
        if (fault := next(left, None)) is not None:
            raise fault
        return deliver(model)

    monkeypatch.setattr(delivery, "deliver", sometimes)
    publisher = Publisher(delivery, metrics, log=log)
    publisher.start()
    publisher.submit(exports[0])
    assert publisher.drain(30)
    publisher.require_alive()
    publisher.stop(5)
    assert publisher.published == (1, 500)
    assert [fields["learning"] for fields in log.named("publish_failed")] == ["goes on", "goes on"]
    assert log.named("publish_failed")[0]["error"].startswith(type(error).__name__)
    counted = metrics.registry.get_sample_value("ferry_trainer_publish_failures_total", {"model": "digits"})
    assert counted == 2


@pytest.mark.parametrize("error", [UsageError("no such name"), RefusedError("load", "reason", "remedy")])
def test_what_no_retry_can_help_is_told_and_left(
    registry: Registry,
    digits: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)

    def refuse(_model: ExportedModel) -> Any:
        raise error

    monkeypatch.setattr(delivery, "deliver", refuse)
    publisher = Publisher(delivery, TrainerMetrics("digits"), log=log)
    publisher.start()
    publisher.submit(exports[0])
    assert publisher.drain(30)
    publisher.stop(5)
    assert len(log.named("publish_refused")) == 1


def test_a_thread_that_ends_is_noticed(
    registry: Registry,
    digits: Pipeline,
    exports: list[ExportedModel],
    log: SlowLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = deliverer(registry, digits, exports[0], log)

    def end(_model: ExportedModel) -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(delivery, "deliver", end)
    publisher = Publisher(delivery, TrainerMetrics("digits"), log=log)
    publisher.start()
    publisher.require_alive()
    publisher.submit(exports[0])
    publisher._thread.join(30)
    with pytest.raises(PublisherEndedError, match=r"SystemExit: 3.*start the trainer again"):
        publisher.require_alive()
