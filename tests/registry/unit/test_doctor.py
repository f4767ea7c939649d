from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from ferryline.registry.catalogue import Registry
from ferryline.registry.doctor import trust
from ferryline.registry.doctor.examination import examine
from ferryline.registry.doctor.findings import Finding, Outcome
from ferryline.registry.doctor.rights import Right, look_at_rights
from ferryline.registry.doctor.trust import Trust, require_trustworthy
from ferryline.registry.documents import ModelFacts, utc_now
from ferryline.registry.errors import StoreUnreachableError, UntrustedAnswerError, UsageError
from ferryline.registry.guarded import GuardedStore
from ferryline.registry.roles import Role
from ferryline.registry.stores import Store
from ferryline.registry.stores.folder import FolderStore
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Fault, FaultyStore
from tests.registry import cheating_stores as cheats


def outcomes(findings: list[Finding], outcome: Outcome) -> set[str]:
    return {finding.probe for finding in findings if finding.outcome is outcome}


def keys_of(store: Store) -> list[str]:
    return [listed.key for listed in store.list("")]


def with_a_model(store: Store) -> Registry:
    registry = Registry(store, actor="tester")
    registry.publish("digits", b"a model", ModelFacts(opset=17, ir_version=8, inputs=(), outputs=()))
    registry.promote("digits", 1)
    return registry


# --- promises ---------------------------------------------------------------------------------------


EXAMINED: dict[str, list[Finding]] = {}


def examined(kind: type[MemoryStore]) -> list[Finding]:
    if kind.__name__ not in EXAMINED:
        EXAMINED[kind.__name__] = examine(kind())
    return EXAMINED[kind.__name__]


def test_an_honest_store_passes_and_keeps_nothing() -> None:
    store = MemoryStore()
    findings = examine(store)
    assert outcomes(findings, Outcome.PASSED) == {finding.probe for finding in findings}
    assert keys_of(store) == []


def test_a_folder_passes_and_keeps_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    findings = examine(store)
    assert [finding for finding in findings if finding.outcome is not Outcome.PASSED] == []
    assert keys_of(store) == []


def test_examining_a_registry_leaves_it_as_it_was() -> None:
    store = MemoryStore()
    with_a_model(store)
    before = {key: store.get(key) for key in keys_of(store)}
    examine(store)
    assert {key: store.get(key) for key in keys_of(store)} == before


@pytest.mark.parametrize(
    ("kind", "probe"),
    [
        (cheats.Overwriting, "put-if-absent twice"),
        (cheats.Overwriting, "put-if-absent race"),
        (cheats.Overwriting, "large object"),
        (cheats.SilentlyOverwriting, "put-if-absent twice"),
        (cheats.CheckingThenWriting, "put-if-absent race"),
        (cheats.KeepingTheLoser, "put-if-absent race"),
        (cheats.Refusing, "put-if-absent twice"),
        (cheats.Stale, "read after write"),
        (cheats.ReadingTheOneBefore, "read after write"),
        (cheats.RememberingMisses, "poll"),
        (cheats.InventingObjects, "missing object"),
        (cheats.InventingObjects, "deletion"),
        (cheats.Truncating, "large object"),
        (cheats.IgnoringConditions, "conditional read"),
        (cheats.NeverChanging, "conditional read"),
        (cheats.LosingWrites, "listing in pages"),
        (cheats.Immortal, "deletion"),
        (cheats.ListingLate, "listing"),
        (cheats.ListingInAnyOrder, "listing in pages"),
        (cheats.ListingOnePage, "listing in pages"),
        (cheats.ListingFromTheStart, "listing"),
        (cheats.ListingWrongSizes, "large object"),
        (cheats.WithoutFolders, "folders"),
        (cheats.Skewed, "clock"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_store_that_cheats_is_caught(kind: type[MemoryStore], probe: str) -> None:
    assert probe in outcomes(examined(kind), Outcome.FAILED)


@pytest.mark.parametrize(
    ("kind", "only"),
    [
        (cheats.CheckingThenWriting, {"put-if-absent race"}),
        (cheats.KeepingTheLoser, {"put-if-absent race"}),
        (cheats.IgnoringConditions, {"conditional read"}),
        (cheats.NeverChanging, {"conditional read"}),
        (cheats.Immortal, {"deletion"}),
        (cheats.WithoutFolders, {"folders"}),
        (cheats.Skewed, {"clock"}),
        (cheats.Truncating, {"large object"}),
    ],
    ids=lambda value: "" if isinstance(value, set) else value.__name__,
)
def test_a_single_fault_fails_its_probe_alone(kind: type[MemoryStore], only: set[str]) -> None:
    assert outcomes(examined(kind), Outcome.FAILED) == only


def test_a_skewed_clock_is_told_by_how_much_and_which_way() -> None:
    (finding,) = [item for item in examined(cheats.Skewed) if item.probe == "clock"]
    assert "3600 s behind" in finding.detail


def test_a_store_that_is_down_fails_every_probe_and_raises_nothing() -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    findings = examine(store)
    assert outcomes(findings, Outcome.FAILED) == {finding.probe for finding in findings}


def test_a_machine_that_cannot_run_enough_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.doctor.writes._TOGETHER_S", 0.2)
    start, left = threading.Thread.start, iter(range(10))

    def start_some(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    findings = {finding.probe: finding for finding in examine(MemoryStore())}
    assert not any(finding.failed for finding in findings.values())
    assert findings["put-if-absent race"].outcome is Outcome.NOT_PROBED
    assert "16 threads at once (can't start new thread)" in findings["put-if-absent race"].detail


def test_read_only_credentials_learn_what_reading_tells() -> None:
    findings = examine(cheats.Guarded())
    assert outcomes(findings, Outcome.PASSED) == {"missing object", "listing order", "unchanged object"}
    assert outcomes(findings, Outcome.FAILED) == set()
    unknown = [finding for finding in findings if finding.outcome is Outcome.NOT_PROBED]
    assert "put-if-absent race" in {finding.probe for finding in unknown}
    assert all("doctor/" in finding.detail for finding in unknown)


def test_read_only_credentials_still_see_a_listing_out_of_order() -> None:
    store = cheats.ListingInAnyOrder()
    for name in ("b", "a"):
        store.put(f"models/{name}/versions/0000000001.json", b"{}")
    assert "listing order" in outcomes(examine(store), Outcome.FAILED)


def test_read_only_credentials_see_a_hint_that_is_always_sent() -> None:
    store = cheats.IgnoringConditions()
    store.put("hint.json", b"{}")
    assert "unchanged object" in outcomes(examine(store), Outcome.FAILED)


# --- rights -----------------------------------------------------------------------------------------


def held(store: Store, role: Role | None = None, consumer: str | None = None) -> dict[Right, bool | None]:
    return {found.right: found.held for found in look_at_rights(store, role=role, consumer=consumer)}


def guarded(*writable: str) -> cheats.Guarded:
    store = cheats.Guarded("")
    with_a_model(store)
    store.put("models/digits/refusals/20260101T000000.000000-00000000.json", b"{}")
    store._writable = writable
    return store


def test_all_rights_are_held_where_nothing_is_guarded_and_nothing_changes() -> None:
    store = guarded("")
    before = {key: store.get(key).data for key in keys_of(store)}
    assert set(held(store).values()) == {True}
    assert {key: store.get(key).data for key in keys_of(store)} == before


def test_a_consumer_may_read_and_beat() -> None:
    found = held(guarded("consumers/grpc-1.json"), consumer="grpc-1")
    assert {right for right, has in found.items() if has} == {
        Right.FIND_MODELS,
        Right.READ_MODELS,
        Right.READ_FILES,
        Right.HEARTBEAT,
        Right.READ_HEARTBEATS,
    }
    assert None not in found.values()


def test_another_consumers_heartbeat_is_not_ones_own() -> None:
    assert held(guarded("consumers/grpc-1.json"), consumer="grpc-2")[Right.HEARTBEAT] is False


def test_what_a_role_lacks_and_what_it_has_too_much_is_told() -> None:
    found = look_at_rights(guarded("blobs/", "models/", "hint.json", "doctor/"), role=Role.CONSUMER)
    assert {finding.right for finding in found if finding.missing} == {Right.HEARTBEAT}
    assert Right.CHANGE_CHANNELS in {finding.right for finding in found if finding.excess}


def test_rights_that_need_something_to_ask_with_are_not_guessed_on_an_empty_registry() -> None:
    store = MemoryStore()
    found = held(store)
    assert found[Right.ADD_VERSIONS] is None
    assert found[Right.CHANGE_CHANNELS] is None
    assert found[Right.FIND_MODELS] is True
    assert keys_of(store) == []


def test_a_live_heartbeat_is_left_alone() -> None:
    store = guarded("")
    store.put("consumers/grpc-1.json", b"live")
    assert held(store, consumer="grpc-1")[Right.HEARTBEAT] is True
    assert store.get("consumers/grpc-1.json").data == b"live"


def test_a_damaged_file_is_not_written_again() -> None:
    store = guarded("")
    (blob,) = [key for key in keys_of(store) if key.startswith("blobs/")]
    store.put(blob, b"damaged")
    etag = store.get(blob).etag
    assert held(store)[Right.OVERWRITE] is None
    assert store.get(blob).etag == etag


def test_asking_a_store_that_overwrites_leaves_every_byte_as_it_was() -> None:
    store = cheats.Overwriting()
    with_a_model(store)
    before = {key: store.get(key).data for key in keys_of(store)}
    look_at_rights(store, role=Role.TRAINER)
    assert {key: store.get(key).data for key in keys_of(store)} == before


def test_a_consumer_that_can_be_none_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot name a consumer"):
        look_at_rights(MemoryStore(), consumer="../x")


# --- trust before the first write -------------------------------------------------------------------


def test_an_honest_store_is_looked_at_once(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    assert require_trustworthy(store, tmp_path) is Trust.PROVED
    spent = store.requests
    assert 0 < spent <= 5
    assert require_trustworthy(store, tmp_path) is Trust.REMEMBERED
    assert store.requests == spent
    assert keys_of(store) == []


@pytest.mark.parametrize(
    "store",
    [cheats.Overwriting(), cheats.SilentlyOverwriting(), cheats.Refusing()],
    ids=lambda value: type(value).__name__,
)
def test_a_store_that_cheats_is_never_written_to_and_never_remembered(
    store: MemoryStore, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(UntrustedAnswerError, match="not fit for a registry"):
            require_trustworthy(store, tmp_path)
    assert [key for key in keys_of(store) if not key.startswith("doctor/")] == []


def test_a_proxy_that_repeats_requests_is_no_cheat(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore(), [Fault.DONE_TWICE])
    assert require_trustworthy(store, tmp_path) is Trust.PROVED


def test_a_store_that_is_down_is_said_to_be_down(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    with pytest.raises(StoreUnreachableError):
        require_trustworthy(store, tmp_path)
    store.down = False
    assert require_trustworthy(store, tmp_path) is Trust.PROVED


def test_credentials_without_doctor_rights_are_not_locked_out(tmp_path: Path) -> None:
    assert require_trustworthy(cheats.Guarded("models/"), tmp_path) is Trust.NOT_PROBED
    assert list(tmp_path.rglob("*.json")) == []


def test_stores_are_remembered_apart(tmp_path: Path) -> None:
    require_trustworthy(MemoryStore("one"), tmp_path)
    assert require_trustworthy(MemoryStore("two"), tmp_path) is Trust.PROVED


@pytest.mark.parametrize("age", [timedelta(days=31), timedelta(days=-1)], ids=["old", "from the future"])
def test_a_note_is_believed_for_a_month(
    age: timedelta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "utc_now", lambda: utc_now() - age)
    require_trustworthy(MemoryStore(), tmp_path)
    monkeypatch.undo()
    assert require_trustworthy(MemoryStore(), tmp_path) is Trust.PROVED
    assert require_trustworthy(MemoryStore(), tmp_path) is Trust.REMEMBERED


@pytest.mark.parametrize("text", ["", "[]", "{", '{"form": 1}', '{"at": 7}', '{"at": "2026-01-01"}'])
def test_a_damaged_note_is_no_note(text: str, tmp_path: Path) -> None:
    require_trustworthy(MemoryStore(), tmp_path)
    (note,) = tmp_path.rglob("*.json")
    assert json.loads(note.read_text())["store"] == "memory://default"
    note.write_text(text)
    assert require_trustworthy(MemoryStore(), tmp_path) is Trust.PROVED


def test_a_memory_that_cannot_be_written_costs_a_look_each_time(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    for _ in range(2):
        assert require_trustworthy(MemoryStore(), occupied) is Trust.PROVED


# --- a guarded store --------------------------------------------------------------------------------


def test_a_guarded_store_looks_before_its_first_entry_and_not_before(tmp_path: Path) -> None:
    inner = FaultyStore(MemoryStore())
    store = GuardedStore(inner, tmp_path)
    store.put("consumers/a.json", b"{}")
    assert [listed.key for listed in store.list("")] == ["consumers/a.json"]
    spent = inner.requests
    with_a_model(store)
    assert inner.requests > spent
    assert list(tmp_path.rglob("*.json"))
    assert Registry(store).channel("digits").require_head().version == 1


def test_a_guarded_store_keeps_entries_from_a_store_that_cheats(tmp_path: Path) -> None:
    inner = cheats.Overwriting()
    for _ in range(2):
        with pytest.raises(UntrustedAnswerError, match="not fit for a registry"):
            with_a_model(GuardedStore(inner, tmp_path))
    assert keys_of(inner) == []


def test_many_threads_of_one_program_look_once(tmp_path: Path) -> None:
    inner = FaultyStore(MemoryStore())
    store = GuardedStore(inner, tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: store.put_if_absent(f"k/{number}", b"x"), range(40)))
    assert inner.requests <= 40 + 5
