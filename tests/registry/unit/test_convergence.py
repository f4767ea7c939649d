"""Waiting for consumers on a machine whose clock is not the store's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from ferryline.registry import Registry
from ferryline.registry.consumers import Consumers
from ferryline.registry.convergence import Convergence, wait_until_served
from ferryline.registry.documents import ChannelEntry, Heartbeat, ServedModelReport, utc_now
from ferryline.registry.errors import WaitTimeoutError
from ferryline.registry.stores.base import Listed
from ferryline.registry.stores.memory import MemoryStore
from tests.onnx_models import inspect_model, linear_classifier


class SkewedStore(MemoryStore):
    """A store whose clock is behind the one of this machine."""

    def __init__(self, behind: timedelta) -> None:
        super().__init__()
        self.behind = behind

    def now(self) -> datetime:
        return utc_now() - self.behind

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for listed in super().list(prefix, after=after):
            yield Listed(listed.key, listed.size, listed.modified_at - self.behind)


def heartbeat(consumer: str, at: datetime, generation: int) -> Heartbeat:
    report = ServedModelReport(model="digits", channel="production", phase="serving", generation=generation)
    return Heartbeat(
        consumer=consumer, role="grpc", host="h", pid=1, started_at=at, at=at,
        interval_seconds=5, models=(report,),
    )  # fmt: skip


def promoted(store: MemoryStore) -> tuple[Registry, ChannelEntry]:
    registry, data = Registry(store, actor="tester"), linear_classifier()
    registry.publish("digits", data, inspect_model(data))
    return registry, registry.promote("digits", 1)


def test_a_clock_that_is_ahead_of_the_stores_makes_nobody_seem_gone() -> None:
    store = SkewedStore(behind=timedelta(minutes=1))
    registry, entry = promoted(store)
    registry.consumers.beat(heartbeat("web1", store.now(), 0))
    with pytest.raises(WaitTimeoutError, match="web1 serves nothing"):
        wait_until_served(registry, entry, seconds=0)


def test_who_falls_silent_by_the_stores_clock_is_not_waited_for() -> None:
    store = SkewedStore(behind=timedelta(minutes=-1))
    registry, entry = promoted(store)
    registry.consumers.beat(heartbeat("web1", store.now(), 0))
    passed = iter(range(0, 100, 10))
    looks: list[Convergence] = []
    with pytest.raises(WaitTimeoutError, match=r"nobody reports it.*\(web1\)"):
        wait_until_served(
            registry, entry, seconds=60, on_look=looks.append, clock=passed.__next__, pause=lambda _: None
        )
    assert [len(look.late) for look in looks] == [1] * (len(looks) - 1) + [0]
    assert [service.heartbeat.consumer for service in looks[-1].silent] == ["web1"]


def test_a_heartbeat_that_cannot_be_read_is_not_passed_over_in_silence() -> None:
    store = MemoryStore()
    registry, entry = promoted(store)
    store.put("consumers/newer.json", b'{"schema_version": "9.0"}')
    standing = wait_until_served(registry, entry, seconds=0)
    assert str(standing).endswith("; 1 heartbeat(s) cannot be read, `ferry status` names them")


def test_a_heartbeat_without_end_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.stores.base.LARGEST_DOCUMENT", 10_000)
    store = MemoryStore()
    store.put("consumers/a.json", bytes(10_001))
    Consumers(store).beat(heartbeat("b", utc_now(), 1))
    faults: list[str] = []
    assert [beat.consumer for beat in Consumers(store).all(faults.append)] == ["b"]
    assert "10001 bytes" in faults[0]


def test_no_consumer_speaks_for_another() -> None:
    store = MemoryStore()
    store.put("consumers/mallory.json", heartbeat("web1", utc_now(), 9).encode())
    faults: list[str] = []
    assert list(Consumers(store).all(faults.append)) == []
    assert faults == ["consumers/mallory.json speaks for web1, which is another consumer"]
    assert list(Consumers(store).all()) == []
