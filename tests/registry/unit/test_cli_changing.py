"""What changes a channel: dry runs, canaries, lost races, waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ferryline.registry import Registry
from ferryline.registry.channels import Channel
from ferryline.registry.cli.waiting import progress
from ferryline.registry.convergence import Convergence, services
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ChannelEntry, Heartbeat, ServedModelReport, utc_now
from ferryline.registry.stores.folder import FolderStore
from tests.registry.ferry import Ferry

pytestmark = pytest.mark.usefixtures("published")


def generation(store_url: str) -> int:
    return Registry.open(store_url).channel("digits").require_head().generation


def test_a_dry_run_decides_and_writes_nothing(ferry: Ferry, store_url: str) -> None:
    promised = ferry("promote", "digits@1", "--dry-run", "-o", "json").json
    assert (promised["version"], promised["generation"], promised["dry_run"]) == (1, 4, True)
    assert "would write" in ferry("promote", "digits@1", "--dry-run").out
    rolled = ferry("rollback", "digits", "--dry-run", "-o", "json").json
    assert (rolled["version"], rolled["held"], rolled["dry_run"]) == (2, True, True)
    assert generation(store_url) == 3
    written = ferry("promote", "digits@1", "-o", "json").json
    assert (written["generation"], written["dry_run"]) == (4, False)


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["real", "dry"])
def test_a_dry_run_ends_as_the_real_one_would(
    ferry: Ferry, file: Callable[..., str], store_url: str, dry_run: list[str]
) -> None:
    assert ferry("promote", "digits@9", *dry_run).code == 3
    assert ferry("promote", "digits@1", "--expect", "1", *dry_run).code == 4
    assert ferry("publish", "digits", file(features=63)).code == 0
    assert ferry("promote", "digits@4", *dry_run).code == 5
    ferry("hold", "digits")
    assert ferry("promote", "digits@1", *dry_run).code == 8
    ferry("release", "digits")
    store = Registry.open(store_url).store
    manifest = Registry.open(store_url).versions("digits").get(1)
    store.delete(f"blobs/sha256/{manifest.blob.digest.removeprefix('sha256:')}")
    gone = ferry("promote", "digits@1", *dry_run)
    assert (gone.code, "gate 'blob'" in gone.err) == (5, True)


def test_a_canary_serves_beside_the_stable_version(ferry: Ferry) -> None:
    entry = ferry("promote", "digits@1", "--canary", "5", "-o", "json").json
    assert (entry["version"], entry["canary"]["version"], entry["canary"]["percent"]) == (3, 1, 5.0)
    assert "3 + 1 for 5 %" in ferry("history", "digits", "-n", "1").out
    assert ferry("list", "digits", "-o", "json").code == 0
    assert ferry("show", "digits@1", "-o", "json").json["serves"] == ["production"]
    assert "canary" in ferry("promote", "digits@2", "--canary", "50").out


@pytest.mark.parametrize("percent", ["0", "100", "-1", "nan", "inf", "five"])
def test_a_share_that_is_none_is_refused(ferry: Ferry, percent: str) -> None:
    assert ferry("promote", "digits@1", "--canary", percent).code == 2


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
@pytest.mark.parametrize(
    "verb", [["promote", "digits@1"], ["rollback", "digits"]], ids=["promote", "rollback"]
)
def test_a_wait_that_is_no_time_is_refused_before_anything_is_written(
    ferry: Ferry, store_url: str, seconds: str, verb: list[str]
) -> None:
    refused = ferry(*verb, "--wait", seconds)
    assert (refused.code, "Traceback" in refused.err) == (2, False)
    assert "--wait" in refused.err
    assert generation(store_url) == 3


def test_a_dry_run_cannot_be_waited_for(ferry: Ferry) -> None:
    assert "leave one of them out" in ferry("promote", "digits@1", "--dry-run", "--wait", "1").err


def test_the_loser_of_a_race_is_told_who_won(
    ferry: Ferry, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Channel.append
    rival = Registry.open(store_url, actor="rival@elsewhere")

    def too_late(self: Channel, entry: ChannelEntry) -> ChannelEntry:
        monkeypatch.setattr(Channel, "append", append)
        rival.promote("digits", 2, reason="mine first")
        return append(self, entry)

    monkeypatch.setattr(Channel, "append", too_late)
    lost = ferry("promote", "digits@1")
    assert (lost.code, lost.out) == (4, "")
    for word in (
        "generation 4",
        "promote of version 2",
        "rival@elsewhere",
        "'mine first'",
        " ago",
        "Nothing was",
    ):
        assert word in lost.err
    assert generation(store_url) == 4


def test_an_expectation_that_fails_names_what_is_there(ferry: Ferry) -> None:
    lost = ferry("promote", "digits@1", "--expect", "1")
    assert "at generation 3, not 1: someone else was first" in lost.err
    assert "version 3 by tester at 20" in lost.err


def test_history_reads_the_newest_entries_only(
    ferry: Ferry, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(store_url)
    for number in range(60):
        registry.promote("digits", 1 + number % 3)
    read: list[str] = []
    get = FolderStore.get

    def counted(self: FolderStore, key: str) -> Any:
        read.append(key)
        return get(self, key)

    monkeypatch.setattr(FolderStore, "get", counted)
    shown = ferry("history", "digits", "-n", "2", "-o", "json").json
    assert [entry["generation"] for entry in shown] == [63, 62]
    assert len(read) < 12


def test_one_unreadable_object_hides_no_other(ferry: Ferry, file: Callable[..., str], store_url: str) -> None:
    assert ferry("publish", "phishing", file(), "--promote").code == 0
    store = Registry.open(store_url).store
    store.put("models/digits/channels/production/0000000003.json", b"{}")
    listed = ferry("list", "-o", "json")
    assert listed.code == 6
    assert {line["model"]: line["channels"]["production"] is None for line in listed.json} == {
        "digits": True,
        "phishing": False,
    }
    assert "unreadable: models/digits/channels/production/0000000003.json" in listed.err
    assert "the list is not whole: 1 object" in listed.err
    assert "production: unreadable" in ferry("list").out
    store.put("models/digits/versions/0000000002.json", b"[]")
    versions = ferry("list", "digits", "-o", "json")
    assert ([line["version"] for line in versions.json], versions.code) == ([3, 1], 6)


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "../digits",
        ".digits",
        "digits.",
        "a..b",
        "Digits",
        "zählen",
        "\u202edigits",
        "d" * 300,
        "a b",
        "",
    ],
    ids=["slash", "climb", "dot", "end", "dots", "case", "unicode", "bidi", "long", "space", "empty"],
)
def test_names_that_cannot_be_are_refused_in_one_line(ferry: Ferry, name: str) -> None:
    for arguments in (
        ("promote", f"{name}@1"), ("history", name), ("pull", name), ("diff", name, "1"),
        ("promote", "digits@1", "-c", name), ("list", name), ("status", name),
    ):  # fmt: skip
        refused = ferry(*arguments)
        assert (refused.code, refused.out) == (2, ""), arguments
        assert "cannot name a" in refused.err
        assert refused.err.count("\n") == 1
        assert "\u202e" not in refused.err


def test_the_line_that_says_how_far_a_wait_is() -> None:
    now = utc_now()
    report = {"model": "digits", "channel": "production", "phase": "serving"}
    beats = [
        Heartbeat(
            consumer=name, role="grpc", host="h", pid=1, started_at=now, at=now + timedelta(seconds=1),
            interval_seconds=5, models=(ServedModelReport(generation=number, **report),),
        )
        for name, number in (("a", 2), ("b", 2), ("c", 2), ("d", 1))
    ]  # fmt: skip
    found = services(beats, now)
    standing = Convergence(None, tuple(found[:3]), tuple(found[3:]), ())  # type: ignore[arg-type]
    assert progress(standing) == "3 of 4 consumers serve it; waiting for d"
    nobody = Convergence(None, (), tuple(found), ())  # type: ignore[arg-type]
    assert progress(nobody).endswith("waiting for a, b, c and 1 more")


def test_a_file_that_a_gate_refuses_is_in_the_ledger(ferry: Ferry, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model at all")
    refused = ferry("publish", "digits", str(bad))
    assert refused.code == 5
    (record,) = ferry("refusals", "digits", "-o", "json").json
    assert (record["gate"], record["consumer"]) == ("parse", "publish")
    assert record["blob_digest"] == digest_of(b"no model at all")
    assert record["reason"] in refused.err
