"""Every damage that `ferry verify` must find, done to a registry that is whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from ferryline.registry import Registry
from ferryline.registry.audit.findings import Audit, Finding, Severity
from ferryline.registry.audit.walk import verify
from ferryline.registry.collection import Retention
from ferryline.registry.collector import Collector
from ferryline.registry.documents import Heartbeat, ModelFacts, ServedModelReport, TensorSpec, utc_now
from ferryline.registry.errors import NotFoundError, StoreUnreachableError, UsageError
from ferryline.registry.refusals import Refusals
from ferryline.registry.stores import Stored
from ferryline.registry.stores.folder import FolderStore
from ferryline.registry.stores.memory import MemoryStore
from tests.registry.signing_keys import Keys, seal

FACTS = ModelFacts(
    opset=17,
    ir_version=8,
    inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)
VERSION = "models/digits/versions/{:010d}.json"
ENTRY = "models/digits/channels/production/{:010d}.json"


@pytest.fixture
def registry() -> Registry:
    registry = Registry(MemoryStore(), actor="tester")
    for number in range(1, 5):
        registry.publish("digits", b"model %d" % number, FACTS)
        registry.promote("digits", number)
    registry.promote("digits", 2, canary=10)
    registry.publish("phishing", b"other", FACTS)
    registry.promote("phishing", 1, "staging")
    Refusals(registry.store, "digits").record(gate="size", reason="r", remedy="m", consumer="publish")
    return registry


def blob(registry: Registry, version: int) -> str:
    return "blobs/sha256/" + registry.versions("digits").get(version).blob.digest.removeprefix("sha256:")


def rewrite(registry: Registry, key: str, **changes: object) -> None:
    raw = orjson.loads(registry.store.get(key).data) | changes
    registry.store.put(key, orjson.dumps(raw, option=orjson.OPT_SORT_KEYS))


def damaged(audit: Audit) -> list[Finding]:
    return [finding for finding in audit.findings if finding.severity is Severity.DAMAGED]


def test_a_whole_registry_is_clean(registry: Registry) -> None:
    audit = verify(registry)
    assert audit.findings == []
    assert audit.clean
    assert (audit.models, audit.versions, audit.entries, audit.files) == (2, 5, 6, 5)
    assert audit.bytes == 4 * len(b"model 1") + len(b"other")


def test_an_empty_store_is_clean() -> None:
    audit = verify(Registry(MemoryStore(), actor="t"))
    assert (audit.clean, audit.models) == (True, 0)


Harm = Callable[[Registry], None]


def _flip(registry: Registry) -> None:
    registry.store.put(blob(registry, 3), b"model X")


def _truncate(registry: Registry) -> None:
    registry.store.put(blob(registry, 3), b"mod")


def _lose(registry: Registry) -> None:
    registry.store.delete(blob(registry, 3))


def _move(registry: Registry) -> None:
    registry.store.put(ENTRY.format(6), registry.store.get(ENTRY.format(2)).data)


def _fork(registry: Registry) -> None:
    rewrite(registry, ENTRY.format(2), reason="I was never here")


def _swap_manifest(registry: Registry) -> None:
    rewrite(registry, VERSION.format(2), labels={"team": "someone else"})


def _hint_ahead(registry: Registry) -> None:
    hint = orjson.loads(registry.store.get("hint.json").data)
    hint["models"]["digits"]["versions"] = 6
    registry.store.put("hint.json", orjson.dumps(hint))


def _consumer_ahead(registry: Registry) -> None:
    now = utc_now()
    report = ServedModelReport(model="digits", channel="production", phase="serving", generation=9)
    registry.consumers.beat(
        Heartbeat(
            consumer="job-1", role="r", host="h", pid=1, started_at=now, at=now, interval_seconds=5,
            models=(report,),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("harm", "where", "what"),
    [
        (_flip, "blobs/sha256/", "its bytes have the digest sha256:"),
        (_truncate, "blobs/sha256/", "the file of digits@3 has 3 bytes instead of 7"),
        (_lose, "blobs/sha256/", "the file of digits@3 is missing from the store, and not by garbage"),
        (lambda r: r.store.delete(VERSION.format(2)), "models/digits/versions/", "a hole: 2 is missing"),
        (lambda r: r.store.delete(ENTRY.format(2)), "production/", "a hole: 2 is missing, and 3 is there"),
        (lambda r: r.store.put(VERSION.format(2), b"{"), VERSION.format(2), "is not JSON"),
        (lambda r: r.store.put(ENTRY.format(3), b"[]"), ENTRY.format(3), "is not a JSON object"),
        (
            lambda r: rewrite(r, VERSION.format(2), schema_version="7.0"),
            VERSION.format(2),
            "schema version 7.0",
        ),
        (_move, ENTRY.format(6), "it describes generation 2 of digits:production and lies in a wrong place"),
        (
            lambda r: rewrite(r, VERSION.format(3), version=2),
            VERSION.format(3),
            "it describes digits@2 and lies in a wrong place",
        ),
        (_fork, ENTRY.format(3), "the chain is forked: generation 3 does not name"),
        (
            lambda r: rewrite(r, ENTRY.format(1), previous="sha256:" + "0" * 64),
            ENTRY.format(1),
            "the chain is forked",
        ),
        (lambda r: rewrite(r, ENTRY.format(5), version=9), ENTRY.format(5), "version 9, which is not there"),
        (_swap_manifest, ENTRY.format(2), "it names version 2 with another manifest"),
        (_swap_manifest, ENTRY.format(5), "it names as its canary version 2 with another manifest"),
        (
            lambda r: rewrite(r, ENTRY.format(4), blob_digest="sha256:" + "0" * 64),
            ENTRY.format(4),
            "with another file than its manifest does",
        ),
        (lambda r: rewrite(r, ENTRY.format(5), undoes_to=8), ENTRY.format(5), "leads forwards"),
        (lambda r: r.store.delete(ENTRY.format(5)), "hint.json", "at 5, and the log ends at 4"),
        (_hint_ahead, "hint.json", "it has seen the versions of digits at 6, and the log ends at 4"),
        (_consumer_ahead, "consumers/job-1.json", "it has seen digits:production at 9"),
    ],
)
def test_damage_is_found_and_told(registry: Registry, harm: Harm, where: str, what: str) -> None:
    harm(registry)
    found = damaged(verify(registry))
    assert [(where in each.where, what in each.what) for each in found].count((True, True)) == 1, found
    assert all(each.remedy for each in found)


@pytest.mark.parametrize(
    ("key", "severity", "what"),
    [
        ("models/digits/README", Severity.WARNING, "no part of a registry writes this"),
        ("models/digits/versions/12.json", Severity.WARNING, "no part of a registry"),
        ("models/digits/versions/0000000000.json", Severity.WARNING, "no part of a registry"),
        ("models/Digits/versions/0000000001.json", Severity.WARNING, "no part of a registry"),
        ("garbage/sha256/x.json", Severity.WARNING, "no part of a registry"),
        ("consumers/job-1.json", Severity.WARNING, "is not JSON"),
        ("hint.json", Severity.WARNING, "is not JSON"),
        ("models/digits/refusals/20260101T000000.000000-00000000.json", Severity.WARNING, "is not JSON"),
        ("blobs/sha256/" + "a" * 64, Severity.NOTE, "no version has this file"),
    ],
)
def test_what_touches_nothing_that_serves_is_no_damage(
    registry: Registry, key: str, severity: Severity, what: str
) -> None:
    registry.store.put(key, b"hello")
    found = [each for each in verify(registry).findings if each.severity is not Severity.DAMAGED]
    assert [(each.severity, each.where, what in each.what) for each in found] == [(severity, key, True)]


def test_all_damage_is_found_at_once_and_the_worst_comes_first(registry: Registry) -> None:
    for harm in (_flip, _fork, _hint_ahead):
        harm(registry)
    registry.store.put("README", b"")
    findings = verify(registry).findings
    assert len(findings) >= 4
    assert [each.severity for each in findings] == [Severity.DAMAGED] * (len(findings) - 1) + [
        Severity.WARNING
    ]


def test_collected_files_are_fine_unless_a_channel_serves_them(registry: Registry) -> None:
    store = registry.store
    retention = Retention(keep_versions=1, rollback_depth=0)
    Collector(registry, retention).run()
    objects = store._objects  # type: ignore[attr-defined]
    for key in [key for key in objects if key.startswith("garbage/sha256/")]:
        objects[key] = (objects[key][0], utc_now() - timedelta(days=2))
    assert len(Collector(registry, retention).run().collected) == 2
    audit = verify(registry)
    assert audit.clean
    assert [each.severity for each in audit.findings] == [Severity.NOTE] * 2
    assert "was collected on" in audit.findings[0].what
    manifest = registry.versions("digits").get(1)
    head = registry.channel("digits").require_head()
    digests = {"blob_digest": manifest.blob.digest, "manifest_digest": manifest.digest}
    later = head.model_copy(
        update={"generation": 6, "version": 1, "canary": None, "previous": head.digest, **digests}
    )
    store.put(ENTRY.format(6), later.encode())
    (finding,) = damaged(verify(registry))
    assert "digits:production serves it" in finding.what


def test_one_model_is_looked_at_by_itself(registry: Registry) -> None:
    _fork(registry)
    assert verify(registry, model="phishing").findings == []
    assert len(damaged(verify(registry, model="digits"))) == 1
    assert verify(registry, model="digits").files == 4
    with pytest.raises(NotFoundError):
        verify(registry, model="nothing")
    with pytest.raises(UsageError):
        verify(registry, model="../digits")


def test_objects_that_cannot_be_read_are_findings_until_the_store_is_away(registry: Registry) -> None:
    class OneBadSector(MemoryStore):
        bad = blob(registry, 2)
        down = False

        def get(self, key: str) -> Stored:
            if key == self.bad or (self.down and key.startswith("models/")):
                raise StoreUnreachableError("input/output error")
            return super().get(key)

    store = OneBadSector()
    store._objects = registry.store._objects  # type: ignore[attr-defined]
    broken = Registry(store, actor="t")
    (finding,) = damaged(verify(broken))
    assert (finding.where, "input/output error" in finding.what) == (store.bad, True)
    for number in range(10):
        registry.publish("phishing", b"%d" % number, FACTS)
    store.down = True
    with pytest.raises(StoreUnreachableError):
        verify(broken)


def test_what_is_unsigned_below_a_signed_head_is_a_warning(registry: Registry) -> None:
    trainer = Keys()
    signed = Registry(registry.store, actor="t", seal=seal(trainer))
    unsigned = verify(signed)
    heads = damaged(unsigned)
    assert {each.where for each in heads} == {"digits:production", "phishing:staging"}
    assert all("not trusted" in each.what for each in heads)
    assert sum(each.severity is Severity.WARNING for each in unsigned.findings) == 5 + 6
    version = signed.publish("digits", b"signed", FACTS).version
    signed.promote("digits", version, force=True)
    assert [each.where for each in damaged(verify(signed))] == ["phishing:staging"]


def test_a_signature_that_does_not_match_is_damage(registry: Registry) -> None:
    trainer = Keys()
    signed = Registry(registry.store, actor="t", seal=seal(trainer))
    version = signed.publish("digits", b"signed", FACTS).version
    key = f"models/digits/versions/{version:010d}.json"
    registry.store.put(key, registry.store.get(key).data.replace(b'"actor":"t"', b'"actor":"m"'))
    assert [each.where for each in damaged(verify(signed)) if "does not match" in each.what] == [key]


def test_a_folder_with_files_of_strange_names(tmp_path: Path) -> None:
    registry = Registry(FolderStore(tmp_path / "store"), actor="tester")
    registry.publish("digits", b"x", FACTS)
    (tmp_path / "store" / "models" / "ä b.txt").write_text("x")
    (finding,) = verify(registry).findings
    assert (finding.severity, finding.where) == (Severity.WARNING, "models/ä b.txt")
