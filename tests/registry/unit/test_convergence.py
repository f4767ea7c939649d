"""Waiting for consumers on a machine whose clock is not the store's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

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


def heartbeat(consumer: str, at: datetime, generation: int, **report: Any) -> Heartbeat:
    served = ServedModelReport(
        model="digits", channel="production", phase="serving", generation=generation, **report
    )
    return Heartbeat(
        consumer=consumer, role="grpc", host="h", pid=1, started_at=at, at=at,
        interval_seconds=5, models=(served,),
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


# --- identity ---------------------------------------------------------------------------------------


@dataclass
class Fleet:
    """A channel with versions 1 to 3, of which 1 and 2 were promoted, and consumers that report."""

    registry: Registry = field(default_factory=lambda: Registry(MemoryStore(), actor="tester"))

    def __post_init__(self) -> None:
        for winner in range(3):
            data = linear_classifier(winner=winner)
            self.registry.publish("digits", data, inspect_model(data))
        for version in (1, 2):
            self.registry.promote("digits", version)

    def report(self, generation: int, version: int, **report: Any) -> None:
        digest = self.registry.versions("digits").get(version).blob.digest
        said = {"version": version, "digest": digest} | report
        self.registry.consumers.beat(heartbeat("web1", utc_now(), generation, **said))

    def wait(self, entry: ChannelEntry) -> str:
        return str(wait_until_served(self.registry, entry, seconds=0))


OTHER = "sha256:" + "0" * 64


def test_a_number_of_a_log_that_was_lost_is_not_taken_for_the_entry() -> None:
    fleet = Fleet()
    entry = fleet.registry.promote("digits", 3)
    for generation in (entry.generation, entry.generation + 4):
        fleet.report(generation, 1)  # what that number named before the log was cut
        with pytest.raises(WaitTimeoutError, match=rf"version 1 as another generation {generation} than"):
            fleet.wait(entry)
    fleet.report(entry.generation, 3)
    assert fleet.wait(entry).startswith("every live consumer serves generation 3")


def test_the_same_version_under_another_entry_is_not_the_entry() -> None:
    fleet = Fleet()
    entry = fleet.registry.promote("digits", 3)
    fleet.report(entry.generation, 3, entry_digest=OTHER)
    with pytest.raises(WaitTimeoutError, match="another generation 3"):
        fleet.wait(entry)
    fleet.report(entry.generation, 3, entry_digest=entry.digest)
    assert "(1)" in fleet.wait(entry)


def test_who_does_not_say_what_it_serves_is_not_believed() -> None:
    fleet = Fleet()
    entry = fleet.registry.promote("digits", 3)
    fleet.report(entry.generation, 3, digest=None)
    with pytest.raises(WaitTimeoutError, match="generation 3 and does not say which file that is"):
        fleet.wait(entry)


def test_who_serves_what_follows_the_entry_has_reached_it() -> None:
    fleet = Fleet()
    entry = fleet.registry.promote("digits", 3)
    fleet.registry.promote("digits", 1)
    newest = fleet.registry.promote("digits", 2)
    fleet.report(newest.generation, 2)
    assert "(1)" in fleet.wait(entry)


def test_a_consumer_without_the_canary_of_the_entry_has_not_reached_it() -> None:
    fleet = Fleet()
    entry = fleet.registry.promote("digits", 3, canary=10)
    fleet.report(entry.generation, 2)
    with pytest.raises(WaitTimeoutError):
        fleet.wait(entry)
    fleet.report(entry.generation, 2, canary_version=3, canary_percent=10)
    assert "(1)" in fleet.wait(entry)


@pytest.mark.parametrize(
    "refused",
    [
        {"refused_generation": 9},
        {"refused_generation": 3, "refused_digest": OTHER},
        {"refused_generation": 3, "refused_entry_digest": OTHER},  # as one that nobody vouched for
    ],
)
def test_what_was_refused_of_a_log_that_was_lost_is_waited_for(refused: dict[str, Any]) -> None:
    fleet = Fleet()
    entry = fleet.registry.promote("digits", 3)
    fleet.report(2, 2, **refused)
    with pytest.raises(WaitTimeoutError, match="after 0 s"):
        fleet.wait(entry)
    fleet.report(2, 2, refused_generation=3, refused_digest=entry.blob_digest, refused_gate="load")
    with pytest.raises(WaitTimeoutError, match=r"it was refused.*by gate load"):
        fleet.wait(entry)


def test_the_time_of_a_heartbeat_is_the_stores_whatever_the_consumers_clock_says() -> None:
    consumers = Consumers(MemoryStore())
    for name, lead in (("fast", timedelta(hours=1)), ("slow", timedelta(hours=-1))):
        consumers.beat(heartbeat(name, utc_now() + lead, 1))
    assert all(abs(utc_now() - beat.at) < timedelta(minutes=1) for beat in consumers.all())


def test_a_heartbeat_that_nobody_rewrites_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    consumers = Consumers(store)
    for name in ("crashed", "live"):
        consumers.beat(heartbeat(name, utc_now(), 1))
    monkeypatch.setattr(store, "now", lambda: utc_now() + timedelta(minutes=1))
    first = list(consumers.all())
    read: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda key: (read.append(key), get(key))[1])
    consumers.beat(heartbeat("live", utc_now(), 2))
    again = list(consumers.all())
    assert read == ["consumers/live.json"]
    assert again[0] == first[0]
    assert again[1].models[0].generation == 2
    store.delete("consumers/crashed.json")
    assert [beat.consumer for beat in consumers.all()] == ["live"]


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
