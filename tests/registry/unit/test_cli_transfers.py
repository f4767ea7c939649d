"""Files in and out: pull, and golden rows at publish."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferryline.registry import Registry
from ferryline.registry.cli.app import main
from tests.onnx_models import golden_rows, linear_classifier
from tests.registry.ferry import Ferry


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("published")
class TestPull:
    def test_the_file_is_what_was_published(self, ferry: Ferry) -> None:
        pulled = ferry("pull", "digits@1", "-o", "json").json
        data = Path(pulled["file"]).read_bytes()
        assert data == linear_classifier(winner=0)
        assert pulled["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert (pulled["file"], pulled["size"]) == ("digits-1.onnx", len(data))
        assert list(Path().glob(".*.onnx*")) == []

    def test_the_default_is_what_serves(self, ferry: Ferry) -> None:
        assert "digits@3" in ferry("pull", "digits", "--to", "x.onnx").out
        assert Path("x.onnx").read_bytes() == linear_classifier(winner=2)

    def test_the_umask_decides_who_may_read(self, ferry: Ferry) -> None:
        before = os.umask(0o027)
        try:
            assert ferry("pull", "digits").code == 0
        finally:
            os.umask(before)
        assert Path("digits-3.onnx").stat().st_mode & 0o777 == 0o640

    def test_a_folder_takes_the_default_name(self, ferry: Ferry, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        assert ferry("pull", "digits@2", "--to", "models").code == 0
        assert (tmp_path / "models" / "digits-2.onnx").exists()

    def test_a_file_is_not_replaced_unasked(self, ferry: Ferry) -> None:
        Path("x").write_text("mine")
        refused = ferry("pull", "digits", "--to", "x")
        assert (refused.code, "--force" in refused.err) == (4, True)
        assert Path("x").read_text() == "mine"
        assert ferry("pull", "digits", "--to", "x", "--force").code == 0
        assert Path("x").read_bytes() == linear_classifier(winner=2)

    def test_standard_output(
        self, ferry: Ferry, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.argv", ["ferry", "pull", "digits@1", "--to", "-"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfdbinary.readouterr()
        assert (ended.value.code, out) == (0, linear_classifier(winner=0))
        assert b"digits@1" in err
        assert ferry("pull", "digits@1", "--to", "-", "-o", "json").code == 2

    @pytest.mark.parametrize("damage", [b"", b"other bytes"])
    def test_damaged_bytes_are_never_left_on_disk(self, ferry: Ferry, store_url: str, damage: bytes) -> None:
        registry = Registry.open(store_url)
        digest = registry.versions("digits").get(1).blob.digest
        registry.store.put(f"blobs/sha256/{digest.removeprefix('sha256:')}", damage)
        refused = ferry("pull", "digits@1")
        assert (refused.code, "digest" in refused.err) == (6, True)
        assert list(Path().glob("*digits*")) == []

    def test_where_it_cannot_be_written_is_said(self, ferry: Ferry) -> None:
        refused = ferry("pull", "digits", "--to", "no/such/folder/x")
        assert (refused.code, "cannot be written" in refused.err) == (2, True)


def rows() -> dict[str, Any]:
    return golden_rows().model_dump(include={"inputs", "outputs"})


def test_golden_rows_go_into_the_manifest(ferry: Ferry, file: Callable[..., str]) -> None:
    Path("rows.json").write_text(json.dumps(rows()))
    published = ferry("publish", "digits", file(), "--golden", "rows.json", "-o", "json").json
    assert published["manifest"]["golden"]["outputs"]["label"] == [0, 0]


def test_golden_rows_from_arrays(ferry: Ferry, file: Callable[..., str]) -> None:
    arrays = {
        f"{kind}/{name}": np.asarray(value) for kind, part in rows().items() for name, value in part.items()
    }
    np.savez("rows.npz", **arrays)  # type: ignore[arg-type]
    published = ferry("publish", "digits", file(), "--golden", "rows.npz", "-o", "json").json
    assert published["manifest"]["golden"]["inputs"]["input"][0] == [1.0] * 4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", b"{"),
        ("rows.json", b"[]"),
        ("rows.json", b'{"inputs": {}, "outputs": {}}'),
        ("rows.json", b'{"inputs": 1, "outputs": {}}'),
        ("rows.npz", b"PK no zip"),
        ("rows.npz", b""),
    ],
)
def test_what_holds_no_golden_rows_is_refused(
    ferry: Ferry, file: Callable[..., str], name: str, content: bytes
) -> None:
    Path(name).write_bytes(content)
    refused = ferry("publish", "digits", file(), "--golden", name)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "golden rows" in refused.err


def test_pickled_arrays_are_not_loaded(ferry: Ferry, file: Callable[..., str]) -> None:
    np.savez("rows.npz", **{"inputs/input": np.array([{"a": 1}], dtype=object)})
    assert ferry("publish", "digits", file(), "--golden", "rows.npz").code == 2
    assert ferry("publish", "digits", file(), "--golden", "missing.json").code == 2


@pytest.mark.usefixtures("published")
def test_a_pull_needs_no_hard_links(ferry: Ferry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    whole = tmp_path / "whole.onnx"
    assert ferry("pull", "digits@2", "--to", str(whole)).code == 0
    monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "folder" / "model.onnx"
    target.parent.mkdir()
    assert ferry("pull", "digits@2", "--to", str(target)).code == 0
    assert target.read_bytes() == whole.read_bytes()
    assert target.stat().st_mode == whole.stat().st_mode
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("links", [True, False])
def test_a_pull_replaces_no_file_that_came_meanwhile(
    ferry: Ferry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    target, link = tmp_path / "model.onnx", os.link

    def too_late(source: Path, name: Path) -> None:
        target.write_bytes(b"theirs")
        if not links:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        link(source, name)

    monkeypatch.setattr(os, "link", too_late)
    refused = ferry("pull", "digits@2", "--to", str(target))
    assert (refused.code, target.read_bytes()) == (4, b"theirs")


@pytest.mark.usefixtures("published")
def test_a_pull_of_a_channel_takes_the_manifest_that_it_names_and_no_other(
    ferry: Ferry, store_url: str, tmp_path: Path
) -> None:
    registry = Registry.open(store_url)
    other = registry.versions("digits").get(1).model_copy(update={"version": 3})
    registry.store.put("models/digits/versions/0000000003.json", other.encode())
    refused = ferry("pull", "digits:production", "--to", str(tmp_path / "model.onnx"))
    assert refused.code == 6
    assert "not the one that generation 3 of digits:production names" in refused.err
    assert not (tmp_path / "model.onnx").exists()
