"""The consumer's memory of the highest generation."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from ferryline.registry.errors import BrokenChainError, UsageError
from ferryline.registry.ratchet import Mark, Ratchet

STORE = "s3://models/?endpoint=http://127.0.0.1:9000"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


@dataclass(frozen=True)
class Seen:
    generation: int
    digest: str


def seen(generation: int, number: int | None = None) -> Seen:
    return Seen(generation, digest(generation if number is None else number))


def ratchet(state: Path, channel: str = "production", store: str = STORE) -> Ratchet:
    return Ratchet(state, store, "digits", channel)


def test_it_only_rises_and_outlives_its_process(tmp_path: Path) -> None:
    first = ratchet(tmp_path)
    assert first.mark() is None
    for generation in (3, 7, 5, 7):
        first.advance(seen(generation))
    assert ratchet(tmp_path).mark() == Mark(7, digest(7))
    assert first.file.stat().st_mode & 0o077 == 0 or first.file.parent.stat().st_mode & 0o077 == 0


def test_the_names_of_its_folders_are_synced_though_the_first_sync_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    full = [tmp_path / "state"]

    def sync(folder: Path) -> None:
        if folder in full:
            raise OSError(errno.EIO, "Input/output error")
        synced.add(folder)

    monkeypatch.setattr("ferryline.registry.durable.sync_folder", sync)
    monkeypatch.setattr("ferryline.registry.ratchet.sync_folder", sync)
    it = ratchet(tmp_path / "state")
    with pytest.raises(UsageError, match="Input/output error"):
        it.advance(seen(1))
    full.clear()
    it.advance(seen(1))
    assert {tmp_path, *it.file.parents[: len(it.file.relative_to(tmp_path).parts) - 1]} <= synced


def test_stores_models_and_channels_do_not_share_a_mark(tmp_path: Path) -> None:
    ratchet(tmp_path).advance(seen(3))
    assert ratchet(tmp_path, "staging").mark() is None
    assert ratchet(tmp_path, store="s3://other").mark() is None
    assert Ratchet(tmp_path, STORE, "letters", "production").mark() is None


def test_a_channel_that_went_on_is_followed(tmp_path: Path) -> None:
    it = ratchet(tmp_path)
    it.require(None, None, digest)
    it.require(None, seen(1), digest)
    it.require(Mark(7, digest(7)), seen(7), lambda _generation: "not asked for")
    it.require(Mark(7, digest(7)), seen(9), digest)


@pytest.mark.parametrize("head", [None, seen(6), seen(7, 99)])
def test_a_channel_that_went_back_is_refused_with_a_way_out(tmp_path: Path, head: Seen | None) -> None:
    it = ratchet(tmp_path)
    with pytest.raises(BrokenChainError, match="cut, replaced or restored") as refused:
        it.require(Mark(7, digest(7)), head, digest)
    assert f"remove {it.file}" in str(refused.value)
    assert "digits:production" in str(refused.value)


def test_a_log_that_was_replaced_below_its_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenChainError, match="another entry of generation 7"):
        ratchet(tmp_path).require(Mark(7, digest(7)), seen(9), lambda _generation: digest(1))


def test_two_logs_under_one_name_are_noticed_when_they_are_remembered(tmp_path: Path) -> None:
    ratchet(tmp_path).advance(seen(7))
    with pytest.raises(BrokenChainError, match="another entry of generation 7"):
        ratchet(tmp_path).advance(seen(7, 99))
    assert ratchet(tmp_path).mark() == Mark(7, digest(7))


@pytest.mark.parametrize(
    "damage",
    [
        lambda _data: b"",
        lambda data: data[:-1],
        lambda _data: b"[]",
        lambda _data: b"{}",
        lambda data: data.replace(b'"generation":7', b'"generation":6'),
        lambda data: data.replace(b'"generation":7', b'"generation":true'),
        lambda data: data.replace(b"sha256:0", b"sha256:1"),
        lambda data: data.replace(b"sha256:0", b"sha1:0"),
        lambda _data: b"\xff" * 100,
    ],
)
def test_a_damaged_file_is_never_taken_for_none(tmp_path: Path, damage: object) -> None:
    it = ratchet(tmp_path)
    it.advance(seen(7))
    before = it.file.read_bytes()
    it.file.write_bytes(damage(before))  # type: ignore[operator]  # the lambdas above
    assert it.file.read_bytes() != before
    for use in (it.mark, lambda: it.advance(seen(8))):
        with pytest.raises(UsageError, match="is damaged") as refused:
            use()
        assert "remove the file" in str(refused.value)
    it.file.unlink()
    it.advance(seen(8))


def test_a_folder_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "ratchet").write_text("")
    it = ratchet(tmp_path)
    for use in (it.mark, lambda: it.advance(seen(1))):
        with pytest.raises(UsageError, match="FERRY_STATE"):
            use()


def test_a_crash_while_writing_leaves_the_old_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = ratchet(tmp_path)
    it.advance(seen(3))

    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    for place, step in ((os, "fsync"), (Path, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(place, step, crash)
            with pytest.raises(KeyboardInterrupt):
                it.advance(seen(4))
        assert ratchet(tmp_path).mark() == Mark(3, digest(3))
    it.advance(seen(4))
    assert ratchet(tmp_path).mark() == Mark(4, digest(4))
