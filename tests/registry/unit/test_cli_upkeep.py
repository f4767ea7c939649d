"""`ferry gc | verify | refusals` as a user types them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from ferryline.registry import Registry
from ferryline.registry.cli.shapes import SHAPES
from ferryline.registry.documents import ModelFacts, TensorSpec
from ferryline.registry.refusals import Refusals
from ferryline.registry.stores.folder import FolderStore
from tests.registry.ferry import Ferry

FACTS = ModelFacts(
    opset=17,
    ir_version=8,
    inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(root: Path) -> Registry:
    registry = Registry(FolderStore(root), actor="tester")
    for number in range(4):
        registry.publish("digits", b"model %d" % number, FACTS)
    registry.promote("digits", 4)
    return registry


def age(root: Path, below: str, days: float) -> None:
    """Make files look as if the store had written them so many days ago."""
    for path in (root / below).rglob("*.json"):
        moment = path.stat().st_mtime - days * 86_400
        os.utime(path, (moment, moment))


def test_gc_marks_then_frees(ferry: Ferry, registry: Registry, root: Path) -> None:
    options = ("gc", "--keep-versions", "1", "--rollback-depth", "0")
    told = ferry(*options, "--dry-run")
    assert told.code == 0
    assert "WOULD MARK" in told.out
    assert "3 (21 B)" in told.out
    assert not (root / "garbage").exists()
    first = ferry(*options, "-o", "json")
    TypeAdapter(SHAPES["gc"]).validate_python(first.json)
    assert (first.code, len(first.json["marked"]), first.json["bytes_marked"]) == (0, 3, 21)
    age(root, "garbage/sha256", 2)
    previewed = ferry(*options, "--dry-run", "-o", "json").json
    second = ferry(*options)
    assert [file["versions"] for file in previewed["collected"]]
    assert "FREED" in second.out
    assert "3 (21 B)" in second.out
    assert "kept: 1 file, 7 B" in second.err
    assert len(list((root / "blobs/sha256").iterdir())) == 1
    assert ferry(*options, "-o", "json").json["bytes_collected"] == 0


def test_gc_takes_settings_and_refuses_what_could_hurt(
    ferry: Ferry, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_GC_KEEP_VERSIONS", "2")
    assert len(ferry("gc", "--dry-run", "-o", "json").json["marked"]) == 2
    assert len(ferry("gc", "--dry-run", "--keep-versions", "3", "-o", "json").json["marked"]) == 1
    for wrong in ("1s", "soon"):
        refused = ferry("gc", "--grace", wrong)
        assert refused.code == 2
        assert refused.err.startswith("error: ")
    assert ferry("gc", "--keep-versions", "0").code == 2


def test_gc_touches_nothing_where_something_cannot_be_read(
    ferry: Ferry, registry: Registry, root: Path
) -> None:
    (root / "models/digits/channels/production/0000000001.json").write_text("{")
    told = ferry("gc")
    assert told.code == 6
    assert "nothing is collected" in told.err
    assert "ferry verify" in told.err
    assert told.out == ""


def test_verify_tells_and_exits(ferry: Ferry, registry: Registry, root: Path) -> None:
    clean = ferry("verify")
    assert (clean.code, clean.out) == (0, "")
    assert "1 model, 4 versions, 1 channel entry and 4 files" in clean.err
    assert "nothing is damaged" in clean.err
    blob = next((root / "blobs/sha256").iterdir())
    blob.write_bytes(b"model ?")
    damaged = ferry("verify")
    assert damaged.code == 6
    assert "DAMAGED" in damaged.out
    assert "publish the same file again" in damaged.out
    assert damaged.err.splitlines()[-1].startswith("error: ")
    told = ferry("verify", "digits", "-o", "json")
    assert told.code == 6
    TypeAdapter(SHAPES["verify"]).validate_python(told.json)
    assert (told.json["clean"], told.json["model"]) == (False, "digits")
    assert ferry("verify", "nothing").code == 3
    assert ferry("verify", "../x").code == 2


def test_refusals_are_listed_newest_first(ferry: Ferry, registry: Registry) -> None:
    assert (ferry("refusals", "digits").code, ferry("refusals", "nothing").code) == (0, 3)
    ledger = Refusals(registry.store, "digits")
    for gate in ("size", "functions", "golden-rows"):
        ledger.record(gate=gate, reason="no \x1b[31mgood", remedy="mend it", consumer="publish", version=3)
    lines = ferry("refusals", "digits", "-n", "2").out.splitlines()
    assert [line.split()[3] for line in lines[1:]] == ["golden-rows", "functions"]
    assert "\x1b" not in "".join(lines)
    told = ferry("refusals", "digits", "-o", "json")
    TypeAdapter(SHAPES["refusals"]).validate_python(told.json)
    assert [record["gate"] for record in told.json] == ["golden-rows", "functions", "size"]
