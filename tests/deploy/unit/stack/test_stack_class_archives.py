"""Which class archives a process uses, and for which Java and jars they are."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from ferryline.deploy.stack import class_archives
from ferryline.deploy.stack.artifacts import ArtifactCache
from ferryline.deploy.stack.class_archives import (
    CLIENT,
    KAFKA,
    RECORD_VARIABLE,
    ClassArchives,
    archives_of,
    name_of_archives,
    name_of_java,
)
from ferryline.deploy.stack.errors import InstallError
from ferryline.deploy.stack.local import LocalStack


def jar(folder: Path, name: str, *members: str) -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member in members:
            archive.writestr(member, f"the content of {member}")
    return folder / name


@pytest.fixture
def java(tmp_path: Path) -> Path:
    home = tmp_path / "java"
    (home / "lib" / "server").mkdir(parents=True)
    (home / "lib" / "server" / "libjvm.so").write_bytes(b"machine code")
    (home / "release").write_text('JAVA_VERSION="21.0.8"\n')
    return home


def test_a_process_uses_its_archive_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "client.jsa").touch()
    archives = ClassArchives(tmp_path)
    assert archives.options(CLIENT)[0] == f"-XX:SharedArchiveFile={tmp_path}/client.jsa"
    assert archives.options(KAFKA) == []
    assert archives.missing == ["kafka", "jobmanager", "taskmanager"]


def test_a_process_writes_its_archive_where_the_environment_says_so(tmp_path: Path) -> None:
    archives = archives_of({RECORD_VARIABLE: str(tmp_path)}, Path("/elsewhere"))
    assert archives.options(KAFKA)[0] == f"-XX:ArchiveClassesAtExit={tmp_path}/kafka.jsa"
    assert archives_of({}, tmp_path) == ClassArchives(tmp_path)


def test_archives_belong_to_one_java_and_the_very_files_of_a_class_path(java: Path, tmp_path: Path) -> None:
    jars = [jar(tmp_path, "a.jar"), jar(tmp_path, "b.jar")]
    name = name_of_archives(java, jars)
    assert name_of_archives(java, jars) == name
    assert name_of_archives(java, jars[:1]) != name
    os.utime(jars[0], (1, 1))  # Java compares sizes and times too
    changed = name_of_archives(java, jars)
    assert changed != name
    (java / "release").write_text('JAVA_VERSION="21.0.9"\n')
    assert name_of_archives(java, jars) not in {name, changed}


def test_a_java_is_known_by_its_release_and_size(java: Path, tmp_path: Path) -> None:
    before = name_of_java(java)
    (java / "lib" / "server" / "libjvm.so").write_bytes(b"other machine code")
    assert name_of_java(java) != before
    assert name_of_java(tmp_path / "nothing").startswith("java-")


def test_a_java_that_has_its_own_archive_is_used_as_it_is(java: Path, tmp_path: Path) -> None:
    (java / "lib" / "server" / "classes.jsa").touch()
    assert ArtifactCache(tmp_path / "cache", {}).java(java, print) == java


def test_flinks_jars_lie_in_one_folder_with_the_planner_out_of_its_loader(tmp_path: Path) -> None:
    loader = jar(tmp_path, "flink-table-planner-loader-2.3.0.jar", "flink-table-planner.jar", "Loader.class")
    other = jar(tmp_path, "flink-dist-2.3.0.jar", "Dist.class")
    cache = ArtifactCache(tmp_path / "cache", {})
    lib = cache.flink_lib([loader, other], lambda _: None)
    names = sorted(found.name for found in lib.iterdir())
    assert names == ["flink-dist-2.3.0.jar", "flink-table-planner_2.12-2.3.0.jar"]
    unpacked = (lib / "flink-table-planner_2.12-2.3.0.jar").read_text()
    assert unpacked == "the content of flink-table-planner.jar"
    assert (lib / "flink-dist-2.3.0.jar").stat().st_mtime_ns == other.stat().st_mtime_ns
    assert cache.flink_lib([other, loader], lambda _: None) == lib


def test_a_loader_of_another_make_is_taken_as_it_is(tmp_path: Path) -> None:
    loader = jar(tmp_path, "flink-table-planner-loader-9.jar", "Loader.class")
    lib = ArtifactCache(tmp_path / "cache", {}).flink_lib([loader], lambda _: None)
    assert [found.name for found in lib.iterdir()] == ["flink-table-planner-loader-9.jar"]


def test_archives_are_recorded_once_and_a_half_recording_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = ClassArchives(tmp_path / "cache" / "stack" / "classes-x")
    monkeypatch.setattr("ferryline.deploy.stack.starter.Starter.archives", lambda _: archives)
    stack = LocalStack(home=tmp_path / "home", cache=tmp_path / "cache", environ={})
    recorded: list[Path] = []

    def record(folder: Path) -> None:
        recorded.append(folder)
        for name in (KAFKA, CLIENT, class_archives.JOB_MANAGER)[: len(recorded) * 3]:
            (folder / f"{name}.jsa").touch()
        if len(recorded) > 1:
            (folder / "taskmanager.jsa").touch()

    with pytest.raises(InstallError, match="no archive of taskmanager"):
        stack.record_archives(record)
    assert not archives.folder.exists()
    for _ in range(2):
        stack.record_archives(record)
    assert len(recorded) == 2
    assert archives.missing == []


def test_nothing_is_recorded_where_a_part_runs_elsewhere(tmp_path: Path) -> None:
    environ = {"FERRY_STORE": "s3://models?endpoint=http://127.0.0.1:1"}
    stack = LocalStack(home=tmp_path / "home", cache=tmp_path / "cache", environ=environ)
    stack.record_archives(lambda _: pytest.fail("it would wait for the lock that recording holds"))
    assert not (tmp_path / "cache").exists()
