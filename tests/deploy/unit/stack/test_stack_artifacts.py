from pathlib import Path

import pytest

from ferryline.deploy.stack import artifacts
from ferryline.deploy.stack.artifacts import ArtifactCache, digest_of
from ferryline.deploy.stack.errors import InstallError
from ferryline.deploy.stack.versions import JarSet

JARS = {"a.jar": b"one", "b.jar": b"two"}


class FakeMaven:
    """Stands in for the download: writes jars, or fails between two of them."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    def __call__(self, _wanted: JarSet, folder: Path) -> None:
        self.calls += 1
        for name, content in JARS.items():
            (folder / name).write_bytes(content)
            if self.fails:
                raise InstallError("the line went dead")


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch) -> FakeMaven:
    fake = FakeMaven()
    monkeypatch.setattr(artifacts, "_fetch_jars", fake)
    return fake


@pytest.fixture
def wanted(tmp_path: Path) -> JarSet:
    folder = tmp_path / "reference"
    folder.mkdir()
    for name, content in JARS.items():
        (folder / name).write_bytes(content)
    return JarSet("example-1.0", with_dependencies=(), alone=("org.example:a:1.0",), digest=digest_of(folder))


def silent(message: str) -> None:
    pass


def test_jars_are_fetched_once(tmp_path: Path, maven: FakeMaven, wanted: JarSet) -> None:
    first = ArtifactCache(tmp_path / "cache", {}).jars(wanted, silent)
    second = ArtifactCache(tmp_path / "cache", {}).jars(wanted, silent)
    assert [jar.name for jar in first] == ["a.jar", "b.jar"]
    assert first == second
    assert maven.calls == 1


def test_an_interrupted_fetch_leaves_nothing_and_is_done_again(
    tmp_path: Path, maven: FakeMaven, wanted: JarSet
) -> None:
    cache = ArtifactCache(tmp_path / "cache", {})
    maven.fails = True
    with pytest.raises(InstallError):
        cache.jars(wanted, silent)
    assert [each.name for each in (tmp_path / "cache" / "stack").iterdir()] == ["lock"]
    maven.fails = False
    assert len(cache.jars(wanted, silent)) == 2


def test_the_draft_of_a_killed_process_is_removed(tmp_path: Path, maven: FakeMaven, wanted: JarSet) -> None:
    draft = tmp_path / "cache" / "stack" / ".draft-old"
    draft.mkdir(parents=True)
    ArtifactCache(tmp_path / "cache", {}).jars(wanted, silent)
    assert not draft.exists()


def test_jars_other_than_the_pinned_ones_are_refused(
    tmp_path: Path, maven: FakeMaven, wanted: JarSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(JARS, "b.jar", b"tampered")
    with pytest.raises(InstallError, match="not the pinned ones"):
        ArtifactCache(tmp_path / "cache", {}).jars(wanted, silent)
    assert not list((tmp_path / "cache" / "stack").glob("example*"))
