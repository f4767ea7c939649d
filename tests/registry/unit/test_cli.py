"""`ferry` as a user types it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ferryline.registry import Registry
from ferryline.registry.documents import Heartbeat, ServedModelReport, utc_now
from ferryline.registry.stores.folder import FolderStore
from tests.registry.ferry import Ferry
from tests.support.waiting import DEADLINE


def test_publish_prints_the_manifest(ferry: Ferry, file: Callable[..., str]) -> None:
    result = ferry("publish", "digits", file(), "--label", "team=a", "--metric", "accuracy=0.9", "-o", "json")
    assert (result.code, result.err) == (0, "")
    manifest = result.json["manifest"]
    assert (manifest["model"], manifest["version"], manifest["opset"]) == ("digits", 1, 17)
    assert manifest["labels"] == {"team": "a"}
    assert manifest["evaluation"]["metrics"] == {"accuracy": 0.9}
    assert result.json["entry"] is None


@pytest.mark.usefixtures("published")
def test_the_whole_life_of_a_channel(ferry: Ferry) -> None:
    assert ferry("rollback", "digits", "-m", "bad", "-o", "json").json["version"] == 2
    assert ferry("promote", "digits@3").code == 8
    assert ferry("release", "digits").code == 0
    assert ferry("promote", "digits@3", "--expect", "5", "-o", "json").json["generation"] == 6
    assert ferry("hold", "digits").code == 0
    assert ferry("promote", "digits@1", "--force").code == 0
    history = ferry("history", "digits", "-o", "json").json
    assert [entry["operation"] for entry in history] == [
        "promote", "hold", "promote", "release", "rollback", "promote", "promote", "promote",
    ]  # fmt: skip
    assert history[4]["reason"] == "bad"


@pytest.mark.usefixtures("published")
def test_tables_for_people(ferry: Ferry) -> None:
    assert "production: 3" in ferry("list").out
    versions = ferry("list", "digits").out.splitlines()
    assert [line.split()[0] for line in versions] == ["VERSION", "3", "2", "1"]
    shown = ferry("show", "digits").out
    assert "input float32[-1, 4]" in shown
    assert "probabilities float32[-1, 3] (probability)" in shown
    table = ferry("history", "digits", "-n", "1").out
    assert "2 -> 3" in table
    assert "try 2" in table
    assert ferry("doctor").out.count("  pass  ") == 14


@pytest.mark.usefixtures("published")
def test_show_by_version_and_channel(ferry: Ferry) -> None:
    assert ferry("show", "digits@1", "-o", "json").json["version"] == 1
    assert ferry("show", "digits:production", "-o", "json").json["serves"] == ["production"]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["promote", "digits"], 2, "names no version"),
        (["promote", "digits@0"], 2, "versions are 1, 2, 3"),
        (["promote", "Digits@1"], 2, "cannot name a model"),
        (["rollback", "digits@1"], 2, "here a channel is meant"),
        (["publish", "digits", "/no/such/file"], 2, "cannot be read"),
        (["publish", "digits", __file__], 5, "no ONNX file"),
        (["publish", "digits", __file__, "--metric", "accuracy"], 2, "--metric takes NAME=VALUE"),
        (["publish", "digits", __file__, "--metric", "accuracy=high"], 2, "--metric takes NAME=VALUE"),
        (["list", "--store", "ftp://x"], 2, "FERRY_STORE is one of"),
        (["list", "--no-such-option"], 2, "No such option"),
        (["nonsense"], 2, "No such command"),
        (["show", "digits@9"], 3, "the newest is 3"),
        (["show", "phishing@1"], 3, "no model phishing"),
        (["list", "phishing"], 3, "no model phishing"),
        (["history", "digits:staging"], 3, "has no entry yet"),
        (["promote", "digits@1", "--expect", "1"], 4, "someone else was first"),
        (["list", "--store", "s3://b?endpoint=http://127.0.0.1:9000"], 2, "'b' cannot name a bucket"),
        (["list", "--store", "s3://models?endpoint=http://h:999999"], 2, "is no store"),
        (["list", "--store", "s3://["], 2, "is no store"),
        (["list", "--store", "s3://models?endpoint=http://["], 2, "is no store"),
        (["list", "--store", "file:///tmp/%00"], 2, "is no store"),
        (["promote", "digits@1", "-m", "\udcff"], 2, "not valid UTF-8"),
        (["publish", "digits", __file__, "--metric", "accuracy=nan"], 2, "--metric takes NAME=VALUE"),
        (["list", "--store", "file:///dev/null/x"], 6, "check the disk"),
    ],
)
def test_what_goes_wrong_is_one_line_and_its_exit_code(
    ferry: Ferry, arguments: list[str], code: int, text: str
) -> None:
    result = ferry(*arguments)
    assert result.code == code
    assert text in " ".join(result.err.replace("│", " ").split())
    assert result.out == ""
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("published")
def test_another_contract_is_refused_with_the_gate_and_the_remedy(
    ferry: Ferry, file: Callable[..., str]
) -> None:
    refused = ferry("publish", "digits", file(features=63), "--promote")
    assert refused.code == 5
    assert "gate 'contract'" in refused.err
    assert "--allow-contract-change" in refused.err
    assert ferry("promote", "digits@4", "--allow-contract-change").code == 0


def heartbeat(consumer: str, generation: int | None, *, silent: float = 0, **report: Any) -> Heartbeat:
    served = ServedModelReport(
        model="digits", channel="production", phase="serving", generation=generation, **report
    )
    now = utc_now()
    return Heartbeat(
        consumer=consumer, role="grpc", host="h", pid=1, started_at=now,
        at=now - timedelta(seconds=silent), interval_seconds=DEADLINE, models=(served,),
    )  # fmt: skip


def of(store_url: str, version: int) -> dict[str, Any]:
    """What a consumer reports of the version that it serves."""
    manifest = Registry.open(store_url).versions("digits").get(version)
    return {"version": version, "digest": manifest.blob.digest}


def fall_silent(root: Path, consumer: str) -> None:
    """Let it be an hour since `consumer` wrote its heartbeat."""
    an_hour_ago = utc_now().timestamp() - 3600
    os.utime(root / "registry" / "consumers" / f"{consumer}.json", (an_hour_ago, an_hour_ago))


@pytest.mark.usefixtures("published")
def test_status_and_wait(ferry: Ferry, store_url: str, tmp_path: Path) -> None:
    consumers = Registry.open(store_url).consumers
    consumers.beat(heartbeat("fast", 4, **of(store_url, 2)))
    consumers.beat(heartbeat("slow", 3, **of(store_url, 3)))
    consumers.beat(
        heartbeat("gone", 1, silent=-3600, **of(store_url, 1))
    )  # a clock that is fast keeps nobody live
    fall_silent(tmp_path, "gone")
    late = ferry("rollback", "digits", "--wait", "0")
    assert late.code == 7
    assert "slow serves generation 3" in late.err
    assert "fast" not in late.err
    assert "gone" not in late.err
    lines = {line["consumer"]: line for line in ferry("status", "-o", "json").json}
    assert {name: line["generations_behind"] for name, line in lines.items()} == {
        "fast": 0,
        "slow": 1,
        "gone": 3,
    }
    assert {name: line["live"] for name, line in lines.items()} == {"fast": True, "slow": True, "gone": False}
    assert "gone, last seen" in ferry("status", "digits").out
    consumers.beat(heartbeat("slow", 5, **of(store_url, 1)))
    consumers.beat(heartbeat("fast", 5, **of(store_url, 1)))
    reached = ferry("rollback", "digits", "--wait", "0")
    assert reached.code == 0
    assert "every live consumer serves generation 5 of digits:production (2); 1 went silent" in reached.err


@pytest.mark.usefixtures("published")
def test_who_is_live_is_told_by_the_stores_clock(
    ferry: Ferry, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry.open(store_url).consumers.beat(heartbeat("web1", 3, **of(store_url, 3)))
    assert ferry("status", "-o", "json").json[0]["live"] is True
    monkeypatch.setattr(FolderStore, "now", lambda _: utc_now() + timedelta(hours=2))
    assert ferry("status", "-o", "json").json[0]["live"] is False
    assert "last seen 2 h ago" in ferry("status").out


@pytest.mark.usefixtures("published")
def test_a_consumer_of_a_log_that_was_lost_is_said_to_be_one(ferry: Ferry, store_url: str) -> None:
    consumers = Registry.open(store_url).consumers
    consumers.beat(heartbeat("same", 3, **of(store_url, 2)))
    consumers.beat(heartbeat("older", 2, **of(store_url, 3)))
    consumers.beat(heartbeat("newer", 9, **of(store_url, 3)))
    consumers.beat(heartbeat("fine", 2, **of(store_url, 2)))
    status = ferry("status", "-o", "json")
    assert {line["consumer"]: line["generations_behind"] for line in status.json} == {
        "same": None,
        "older": None,
        "newer": None,
        "fine": 1,
    }
    assert "same serves digits@2 as generation 3, which digits:production does not show so" in status.err
    assert "fine" not in status.err


@pytest.mark.usefixtures("published")
def test_a_damaged_entry_is_not_said_to_be_a_log_that_was_cut(ferry: Ferry, store_url: str) -> None:
    registry = Registry.open(store_url)
    registry.consumers.beat(heartbeat("fine", 2, **of(store_url, 2)))
    registry.store.put("models/digits/channels/production/0000000002.json", b"damaged")
    status = ferry("status", "-o", "json")
    assert [line["generations_behind"] for line in status.json] == [None]
    assert "the log was cut or replaced, or that entry cannot be read; `ferry verify` tells" in status.err


@pytest.mark.usefixtures("published")
def test_a_wait_for_nobody_says_so(ferry: Ferry) -> None:
    result = ferry("promote", "digits@1", "--wait", "0")
    assert result.code == 0
    assert "no live consumer follows it" in result.err


@pytest.mark.usefixtures("published")
def test_a_wait_ends_at_once_when_a_consumer_refused(ferry: Ferry, store_url: str) -> None:
    refusal = {"refused_generation": 4, "refused_gate": "digest", "last_error": "100 bytes"}
    Registry.open(store_url).consumers.beat(heartbeat("picky", 3, **of(store_url, 3), **refusal))
    result = ferry("promote", "digits@1", "--wait", "3600")
    assert result.code == 7
    assert "picky serves generation 3, refused it by gate digest (100 bytes)" in result.err


@pytest.mark.usefixtures("published")
def test_a_consumer_whose_clock_is_slow_is_not_gone(ferry: Ferry, store_url: str) -> None:
    Registry.open(store_url).consumers.beat(heartbeat("slow-clock", 1, silent=3600))
    assert ferry("promote", "digits@1", "--wait", "0").code == 7
    assert ferry("status", "-o", "json").json[0]["live"] is True


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    "damage",
    [
        {"schema_version": "9.0"},
        {"schema_version": "\u00b2"},
        {"interval_seconds": 1e300},
        {"pid": 10**30},
        {"models": 1},
        {"models": [{"model": "NO NAME", "channel": "production", "phase": "x"}]},
        None,
    ],
)
@pytest.mark.parametrize("output", ["json", "table"])
def test_one_bad_heartbeat_hides_no_other(
    ferry: Ferry, store_url: str, damage: dict[str, Any] | None, output: str
) -> None:
    registry = Registry.open(store_url)
    registry.consumers.beat(heartbeat("fine", 4, **of(store_url, 1)))
    good = heartbeat("bad", 4, **of(store_url, 1)).model_dump(mode="json")
    registry.store.put("consumers/bad.json", b"" if damage is None else json.dumps(good | damage).encode())
    result = ferry("status", "-o", output)
    assert result.code == 0
    assert "fine" in result.out
    assert ferry("promote", "digits@1", "--wait", "0").code == 0


@pytest.mark.usefixtures("published")
def test_status_survives_a_channel_that_cannot_be_read(ferry: Ferry, store_url: str) -> None:
    registry = Registry.open(store_url)
    registry.consumers.beat(heartbeat("fine", 3))
    registry.store.put("models/digits/channels/production/0000000004.json", b"{}")
    result = ferry("status", "-o", "json")
    assert (result.code, result.json[0]["generations_behind"]) == (0, None)
    assert "0000000004.json" in result.err


def test_a_newer_schema_is_refused_by_name(ferry: Ferry, store_url: str, published: None) -> None:
    store = Registry.open(store_url).store
    key = "models/digits/versions/0000000001.json"
    store.put(key, store.get(key).data.replace(b'"schema_version":"1.0"', b'"schema_version":"3.1"'))
    result = ferry("show", "digits@1")
    assert result.code == 6
    assert "schema version 3.1" in result.err


@pytest.mark.usefixtures("published")
def test_what_others_wrote_cannot_steer_the_terminal(ferry: Ferry) -> None:
    assert ferry("hold", "digits", "-m", "a\x1b[2Jb\nc").code == 0
    shown = ferry("history", "digits", "-n", "1").out
    assert "a\ufffd[2Jb c" in shown
    assert "\x1b" not in ferry("promote", "digits@1").err


def test_a_channel_that_cannot_be_is_refused_before_anything_is_published(
    ferry: Ferry, file: Callable[..., str]
) -> None:
    assert ferry("publish", "digits", file(), "--promote", "--channel", "BAD").code == 2
    assert ferry("list", "-o", "json").json == []


def test_help_shows_an_example_for_every_command(ferry: Ferry) -> None:
    listing = ferry("--help").out
    for command in ("publish", "list", "show", "history", "promote", "rollback", "status", "doctor"):
        assert command in listing
        assert f"ferry {command}" in ferry(command, "--help").out


def test_a_config_file_and_its_faults(
    ferry: Ferry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: None
) -> None:
    config = tmp_path / "config.toml"
    monkeypatch.setenv("FERRY_CONFIG", str(config))
    config.write_text(f'store = "{(tmp_path / "elsewhere").as_uri()}"')
    assert len(ferry("list", "-o", "json").json) == 1, "the environment goes before the file"
    monkeypatch.delenv("FERRY_STORE")
    assert ferry("list", "-o", "json").json == []
    config.write_text("store = ")
    broken = ferry("list")
    assert broken.code == 2
    assert "is not TOML" in broken.err
