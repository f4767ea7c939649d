"""The newest state of a job among the folders that earlier ones left."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ferryline.flink_scoring.restoring import (
    CHECKPOINTS,
    SAVEPOINTS,
    Entry,
    Listing,
    StateFolders,
    restore_path,
)
from ferryline.registry.errors import NotFoundError

FOLDERS = StateFolders("s3://flink/checkpoints/digits", "s3://flink/savepoints", "cc6b6b")
NOWHERE = StateFolders("", "", "cc6b6b")


def listing(files: dict[str, int]) -> Listing:
    def entries(folder: str) -> Iterable[Entry]:
        below = [
            (path.removeprefix(f"{folder}/"), at)
            for path, at in files.items()
            if path.startswith(f"{folder}/")
        ]
        names: dict[str, Entry] = {}
        for rest, at in below:
            name, slash, _ = rest.partition("/")
            names[name] = Entry(name, bool(slash), 0 if slash else at)
        return names.values()

    return entries


def test_a_job_has_a_folder_of_its_own_below_the_configured_one() -> None:
    settings = {CHECKPOINTS: "s3://flink/checkpoints/", SAVEPOINTS: "s3://flink/savepoints"}
    assert StateFolders.of(settings.get, "digits") == FOLDERS
    assert FOLDERS.settings == {CHECKPOINTS: "s3://flink/checkpoints/digits"}
    assert StateFolders.of(lambda _, default: default, "digits").settings == {}


def test_the_newest_complete_state_of_all_earlier_jobs_is_taken() -> None:
    files = {
        "s3://flink/checkpoints/digits/aaaaaaaa/chk-9/_metadata": 100,
        "s3://flink/checkpoints/digits/bbbbbbbb/chk-2/_metadata": 300,
        "s3://flink/checkpoints/digits/bbbbbbbb/chk-3/part": 400,
        "s3://flink/checkpoints/digits/bbbbbbbb/shared/_metadata": 500,
        "s3://flink/checkpoints/other/cccccccc/chk-1/_metadata": 900,
        "s3://flink/savepoints/savepoint-aaaaaa-1/_metadata": 200,
        "s3://flink/savepoints/savepoint-cccccc-1/_metadata": 950,
    }
    newest = "s3://flink/checkpoints/digits/bbbbbbbb/chk-2"
    assert restore_path("newest", FOLDERS, listing(files)) == newest


def test_a_job_that_was_stopped_has_no_checkpoints_left_and_its_savepoint_is_taken() -> None:
    files = {
        "s3://flink/checkpoints/digits/aaaaaaaa/chk-9/_metadata": 100,
        "s3://flink/savepoints/savepoint-cc6b6b-1/_metadata": 300,
        "s3://flink/savepoints/savepoint-cc6b6b-2/part": 400,
        "s3://flink/savepoints/savepoint-dddddd-1/_metadata": 500,
    }
    newest = "s3://flink/savepoints/savepoint-cc6b6b-1"
    assert restore_path("newest", FOLDERS, listing(files)) == newest


def test_a_savepoint_that_an_earlier_release_wrote_is_found_by_the_note_of_its_job() -> None:
    files = {
        "s3://flink/checkpoints/digits/aaaaaaaa/chk-9/_metadata": 100,
        "s3://flink/checkpoints/digits/bbbbbbbb/submitted": 200,
        "s3://flink/savepoints/savepoint-bbbbbb-1/_metadata": 300,
    }
    newest = "s3://flink/savepoints/savepoint-bbbbbb-1"
    assert restore_path("newest", FOLDERS, listing(files)) == newest


def test_the_ids_of_a_job_begin_alike_and_never_repeat() -> None:
    ids = {FOLDERS.new_job_id() for _ in range(100)}
    assert len(ids) == 100
    assert {(len(each), each[:6]) for each in ids} == {(32, "cc6b6b")}
    assert StateFolders.of(lambda _, default: default, "other").id_begins != "cc6b6b"


def test_a_first_start_has_nothing_to_go_on_from() -> None:
    assert restore_path("newest", FOLDERS, listing({})) is None


def test_a_state_may_be_named() -> None:
    assert restore_path("s3://x/chk-7", NOWHERE, listing({})) == "s3://x/chk-7"


def test_a_cluster_that_keeps_no_checkpoints_is_told() -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        restore_path("newest", NOWHERE, listing({}))
