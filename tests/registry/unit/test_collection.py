"""What garbage collection keeps and why; and what it does with what is no model file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ferryline.registry import Registry
from ferryline.registry.collection import Found, Retention, Why, old_refusals, plan
from ferryline.registry.collector import Collector
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import Heartbeat, ModelFacts, ServedModelReport, TensorSpec, utc_now
from ferryline.registry.errors import BrokenChainError, UsageError
from ferryline.registry.refusals import Refusals
from ferryline.registry.stores import Listed
from ferryline.registry.stores.folder import FolderStore
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import CountingStore

FACTS = ModelFacts(
    opset=17,
    ir_version=8,
    inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)
NOW = datetime(2026, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)
TIGHT = Retention(keep_versions=1, rollback_depth=0)


@pytest.fixture
def registry() -> Registry:
    return Registry(MemoryStore(), actor="tester")


def content(number: int) -> bytes:
    return b"model %d" % number


def publish(registry: Registry, count: int, *, promote: bool = False) -> None:
    for number in range(1, count + 1):
        registry.publish("digits", content(number), FACTS)
        if promote:
            registry.promote("digits", number)


def beat(registry: Registry, **report: object) -> None:
    served = ServedModelReport(model="digits", channel="production", phase="serving", **report)
    now = utc_now()
    registry.consumers.beat(
        Heartbeat(
            consumer="job-1", role="flink", host="h", pid=1, started_at=now, at=now, interval_seconds=5,
            models=(served,),
        )
    )  # fmt: skip


def garbage(registry: Registry, retention: Retention = TIGHT) -> list[int]:
    """The versions whose file a run would mark."""
    marked = Collector(registry, retention).preview().marked
    return sorted(int(name.partition("@")[2]) for file in marked for name in file.versions)


def why(registry: Registry, version: int, retention: Retention = TIGHT) -> set[Why]:
    digest = registry.versions("digits").get(version).blob.digest
    report = Collector(registry, retention).preview()
    return {reference.why for reference in report.kept_because if reference.digest == digest}


def test_the_newest_versions_are_kept(registry: Registry) -> None:
    publish(registry, 5)
    assert garbage(registry, Retention(keep_versions=2, rollback_depth=0)) == [1, 2, 3]
    assert why(registry, 5) == {Why.NEWEST}


def test_what_serves_and_what_one_can_go_back_to_is_kept(registry: Registry) -> None:
    publish(registry, 6, promote=True)
    assert garbage(registry, Retention(keep_versions=1, rollback_depth=2)) == [1, 2, 3]
    registry.rollback("digits")
    registry.rollback("digits")
    assert registry.channel("digits").require_head().version == 4
    assert garbage(registry, Retention(keep_versions=1, rollback_depth=2)) == [1]
    assert why(registry, 4) == {Why.HELD}


def test_a_canary_is_kept(registry: Registry) -> None:
    publish(registry, 4)
    registry.promote("digits", 1)
    registry.promote("digits", 2, canary=5)
    assert garbage(registry) == [3]
    assert why(registry, 2) == {Why.CANARY}
    registry.promote("digits", 3)
    assert garbage(registry) == [1, 2]
    assert garbage(registry, replace(TIGHT, rollback_depth=1)) == []


def test_every_channel_of_every_model_keeps_its_own_and_what_is_shared(registry: Registry) -> None:
    publish(registry, 3)
    registry.promote("digits", 1, "staging")
    registry.publish("phishing", content(2), FACTS)
    assert garbage(registry) == []


def test_the_canary_of_a_consumer_is_kept_by_its_digest(registry: Registry) -> None:
    publish(registry, 4)
    digest = registry.versions("digits").get(2).blob.digest
    # version 1 of the log that this consumer followed had the file that is 2 in this one
    beat(registry, canary_version=1, canary_digest=digest)
    assert garbage(registry) == [1, 3]


def test_what_a_consumer_serves_is_kept_until_it_was_gone_for_a_day(registry: Registry) -> None:
    publish(registry, 4)
    beat(registry, version=1, digest=digest_of(content(1)), generation=1, canary_version=2)
    assert garbage(registry) == [3]
    assert why(registry, 1) == {Why.CONSUMER}
    stored = registry.store._objects  # type: ignore[attr-defined]
    stored["consumers/job-1.json"] = (stored["consumers/job-1.json"][0], utc_now() - 2 * DAY)
    assert garbage(registry) == [1, 2, 3]
    report = Collector(registry, TIGHT).run()
    assert report.heartbeats == 1
    assert list(registry.store.list("consumers/")) == []


def test_a_hole_in_a_log_hides_nothing(registry: Registry) -> None:
    publish(registry, 5, promote=True)
    registry.store.delete("models/digits/versions/0000000003.json")
    registry.store.delete("models/digits/channels/production/0000000002.json")
    assert garbage(registry) == [1, 2, 4]


@pytest.mark.parametrize(
    "key",
    [
        "models/digits/versions/0000000003.json",
        "models/digits/channels/production/0000000003.json",
        "models/phishing/channels/production/0000000001.json",
        "consumers/job-1.json",
    ],
)
def test_what_cannot_be_read_might_refer_to_anything(registry: Registry, key: str) -> None:
    publish(registry, 3, promote=True)
    registry.store.put(key, b"{")
    before = {listed.key for listed in registry.store.list("blobs/")}
    with pytest.raises(BrokenChainError, match="nothing is collected"):
        Collector(registry, TIGHT).run()
    with pytest.raises(BrokenChainError, match="nothing is collected"):
        Collector(registry, TIGHT).preview()
    assert {listed.key for listed in registry.store.list("blobs/")} == before
    assert list(registry.store.list("garbage/sha256/")) == []


def test_a_damaged_manifest_of_long_ago_stops_nothing(registry: Registry) -> None:
    publish(registry, 3, promote=True)
    registry.store.put("models/digits/versions/0000000001.json", b"{")
    assert {file.versions for file in Collector(registry, TIGHT).preview().marked} == {(), ("digits@2",)}


def test_manifests_and_entries_stay(registry: Registry) -> None:
    publish(registry, 4, promote=True)
    before = [listed.key for listed in registry.store.list("models/")]
    Collector(registry, TIGHT).run()
    assert [listed.key for listed in registry.store.list("models/")] == before


def test_a_preview_writes_nothing(registry: Registry) -> None:
    publish(registry, 4)
    counting = CountingStore(registry.store)
    report = Collector(Registry(counting, actor="t"), TIGHT).preview()
    assert [file.size for file in report.marked] == [7, 7, 7]
    assert {"put", "put_if_absent", "delete"} & {str(verb) for verb in counting.calls} == set()


def test_foreign_objects_are_left_alone(tmp_path: Path) -> None:
    registry = Registry(FolderStore(tmp_path), actor="tester")
    publish(registry, 2)
    for name in ("blobs/README", "blobs/sha256/" + "a" * 63, "models/ä.txt", "consumers/~x", "x y.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    report = Collector(registry, TIGHT).run()
    assert len(report.marked) == 1
    assert (tmp_path / "x y.txt").read_text() == "mine"


def test_left_over_probes_go_after_a_day(registry: Registry) -> None:
    publish(registry, 1)
    store = registry.store
    store.put("doctor/old/race", b"x")
    store.put("doctor/new/race", b"x")
    objects = store._objects  # type: ignore[attr-defined]
    objects["doctor/old/race"] = (objects["doctor/old/race"][0], utc_now() - 2 * DAY)
    assert Collector(registry, TIGHT).run().probes == 1
    assert [listed.key for listed in store.list("doctor/")] == ["doctor/new/race"]


def test_refusals_go_by_age_and_number() -> None:
    ledger = [Listed(f"r{age:03d}", 1, NOW - age * DAY) for age in (200, 100, 50, 3, 2, 1)]
    retention = Retention(keep_refusals=3, refusals_for=timedelta(days=90))
    assert old_refusals(ledger, retention, now=NOW) == ["r200", "r100", "r050"]
    assert old_refusals(ledger, replace(retention, keep_refusals=5), now=NOW) == ["r200", "r100"]
    assert old_refusals([], retention, now=NOW) == []


def test_a_run_removes_old_refusals(registry: Registry) -> None:
    publish(registry, 1)
    ledger = Refusals(registry.store, "digits")
    for _ in range(4):
        ledger.record(gate="size", reason="too big", remedy="make it smaller", consumer="publish")
    assert Collector(registry, replace(TIGHT, keep_refusals=1)).run().refusals == 3
    assert len(list(registry.store.list("models/digits/refusals/"))) == 1


def test_marks_are_due_at_the_grace_by_the_stores_times() -> None:
    digest = digest_of(b"x")
    file, mark = Listed("file", 1, NOW), Listed("mark", 1, NOW)
    found = Found({digest: file}, {digest: mark}, {})
    grace = timedelta(hours=1)
    assert plan(found, [], now=NOW + grace, grace=grace).collect == (digest,)
    assert plan(found, [], now=NOW + grace - timedelta(seconds=1), grace=grace).wait == (digest,)
    assert plan(found, [digest], now=NOW + grace, grace=grace).unmark == (digest,)
    assert plan(Found({}, {digest: mark}, {}), [], now=NOW + grace, grace=grace).unmark == (digest,)
    assert plan(Found({digest: file}, {}, {}), [], now=NOW, grace=grace).mark == (digest,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep_versions": 0},
        {"rollback_depth": -1},
        {"keep_refusals": 0},
        {"grace": timedelta(minutes=9)},
    ],
)
def test_retention_that_could_hurt_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Retention(**wrong)  # type: ignore[arg-type]


def test_runs_of_long_ago_are_forgotten(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.turns.RUNS_KEPT", 3)
    publish(registry, 1)
    for _ in range(8):
        Collector(registry, TIGHT).run()
    kept = [listed.key for listed in registry.store.list("garbage/runs/")]
    assert len(kept) == 2 * 3
    assert kept[-1] == "garbage/runs/0000000008.json"
