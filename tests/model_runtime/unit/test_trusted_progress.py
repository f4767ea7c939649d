"""A consumer far behind on a store that fails, and what its entries ask for."""

from __future__ import annotations

import random

import pytest

from ferryline.model_runtime.follower.trusted import News, TrustedChannel
from ferryline.registry import Registry
from ferryline.registry.documents import ModelFacts
from ferryline.registry.errors import StoreUnreachableError
from ferryline.registry.stores import Stored
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import CountingStore, Wrapper

FACTS = ModelFacts(opset=17, ir_version=8, inputs=(), outputs=())


class BusyStore(Wrapper):
    """Answers a read only with a certain probability."""

    def __init__(self, inner: CountingStore, failing: float, seed: int) -> None:
        super().__init__(inner)
        self._failing = failing
        self._random = random.Random(seed)  # noqa: S311 - a test

    def get(self, key: str) -> Stored:
        stored = self.inner.get(key)
        if self._random.random() < self._failing:
            raise StoreUnreachableError("503 SlowDown")
        return stored


class Fleet:
    """An operator's registry of three versions, of which one is promoted."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.operator = Registry(self.memory, actor="operator")
        for number in range(3):
            self.operator.publish("m", b"model %d" % number, FACTS)
        self.operator.promote("m", 1)

    def consumer(self, store: Wrapper | MemoryStore) -> TrustedChannel:
        return TrustedChannel(Registry(store).channel("m"))


@pytest.mark.parametrize(("failing", "seed"), [(0.005, 7), (0.05, 1), (0.3, 2)])
def test_a_consumer_far_behind_arrives_though_requests_fail(failing: float, seed: int) -> None:
    fleet = Fleet()
    counting = CountingStore(fleet.memory)
    busy = BusyStore(counting, 0.0, seed)
    consumer = fleet.consumer(busy)
    news = consumer.news(None)
    assert news is not None
    handled = news.entry
    for turn in range(600):
        fleet.operator.promote("m", 2 - turn % 2)
    last = fleet.operator.rollback("m", to=1, reason="must be seen soon")
    counting.reset()
    busy._failing = failing
    for _ in range(600):
        try:
            news = consumer.news(handled)
        except StoreUnreachableError:
            continue
        break
    assert news is not None
    assert news.entry.digest == last.digest
    assert news.taken_back == last.generation
    assert counting.total < 610 / (1 - failing) * 1.2


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def after_leaving_version_2(fleet: Fleet, *steps: str) -> News:
    """What a consumer that handled a promotion of version 2 is told of further entries."""
    handled = fleet.operator.promote("m", 2)
    consumer = fleet.consumer(fleet.memory)
    consumer.news(None)
    assert consumer.news(handled) is None
    for step in steps:
        match step.split():
            case ["canary", version]:
                fleet.operator.promote("m", int(version), canary=10)
            case ["promote", version]:
                fleet.operator.promote("m", int(version), force=True)
            case ["rollback", version]:
                fleet.operator.rollback("m", to=int(version))
            case ["rollback"]:
                fleet.operator.rollback("m")
            case ["hold"]:
                fleet.operator.hold("m")
            case ["release"]:
                fleet.operator.release("m")
    news = consumer.news(handled)
    assert news is not None
    return news


@pytest.mark.parametrize(
    "steps",
    [
        ("hold",),
        ("hold", "release"),
        ("canary 3",),
        ("canary 3", "canary 1"),
        ("canary 3", "rollback"),
        ("canary 3", "hold", "rollback", "release"),
    ],
)
def test_what_happens_beside_the_version_that_serves_chooses_nothing(
    fleet: Fleet, steps: tuple[str, ...]
) -> None:
    news = after_leaving_version_2(fleet, *steps)
    assert (news.entry.version, news.chosen) == (2, False)


@pytest.mark.parametrize(
    "steps",
    [
        ("promote 2",),
        ("rollback 2",),
        ("canary 3", "promote 2"),
        ("promote 2", "canary 3"),
        ("promote 3", "rollback"),
        ("promote 3", "rollback", "release"),
    ],
)
def test_what_puts_a_version_to_serve_chooses_it(fleet: Fleet, steps: tuple[str, ...]) -> None:
    news = after_leaving_version_2(fleet, *steps)
    assert (news.entry.version, news.chosen) == (2, True)


def test_a_rollback_is_told_whatever_comes_over_it(fleet: Fleet) -> None:
    news = after_leaving_version_2(fleet, "rollback", "hold", "release")
    assert (news.entry.generation, news.taken_back) == (5, 3)
