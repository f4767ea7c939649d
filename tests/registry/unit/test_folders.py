"""Folders of the former name become those of this one, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.registry.folders import default_store, former_store, user_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def former(home: Path) -> Path:
    folder = home / "modelferry"
    folder.mkdir()
    (folder / "kept").write_text("what it held")
    return folder


def test_a_new_user_gets_no_trace_of_the_former_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert user_folder("state") == home / "ferryline"
    assert list(home.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_a_folder_is_moved_once_and_said(
    home: Path, former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [user_folder("state") for _ in range(3)] == [home / "ferryline"] * 3
    assert capsys.readouterr().err == f"note: moved {former} to {home / 'ferryline'}, and left a link\n"
    # a program that still runs finds its files, and what it writes is not lost
    (former / "later").write_text("written by the former release")
    assert {path.name for path in (home / "ferryline").iterdir()} == {"kept", "later"}
    assert {path.name for path in home.iterdir()} == {"ferryline", "modelferry"}


def test_a_link_of_the_users_own_goes_on_leading_where_it_led(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "large-disk"
    elsewhere.mkdir()
    (home / "modelferry").symlink_to("large-disk", target_is_directory=True)
    assert user_folder("cache") == home / "ferryline"
    assert (home / "ferryline").samefile(elsewhere)
    assert (home / "modelferry").samefile(elsewhere)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_no_folder_is_left_alone(home: Path, kind: str) -> None:
    if kind == "file":
        (home / "modelferry").write_text("not ours")
    else:
        (home / "modelferry").symlink_to("nowhere")
    assert user_folder("state") == home / "ferryline"
    assert [path.name for path in home.iterdir()] == ["modelferry"]


def test_a_home_that_is_moved_keeps_its_link(
    home: Path, former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_folder("state")
    moved = home.with_name(f"{home.name}-moved")
    home.rename(moved)
    monkeypatch.setenv("XDG_STATE_HOME", str(moved))
    assert user_folder("state") == moved / "ferryline"
    assert (moved / former.name / "kept").exists()


def test_two_folders_are_left_alone_and_said_once(
    home: Path, former: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "ferryline").mkdir()
    for _ in range(2):
        assert user_folder("data") == home / "ferryline"
    assert capsys.readouterr().err.count(f"{former} and {home / 'ferryline'} both exist") == 1
    assert (former / "kept").exists()
    assert user_folder("cache") == home / "ferryline"
    assert former_store(default_store()) is None  # they are two places
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_a_message_that_nobody_reads_stops_nothing(
    home: Path, former: Path, monkeypatch: pytest.MonkeyPatch, stderr: str | None
) -> None:
    class Closed:
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", None if stderr is None else Closed())
    assert user_folder("data") == home / "ferryline"
    assert former.samefile(home / "ferryline")


def test_a_folder_that_cannot_be_moved_stays_in_use(
    home: Path, former: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuses)
    assert user_folder("data") == former
    assert default_store() == (former / "registry").as_uri()
    assert "cannot be moved" in capsys.readouterr().err
    assert [path.name for path in home.iterdir()] == ["modelferry"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_crash_at_any_step_is_made_up_for(
    home: Path, former: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    class PowerCutError(BaseException):
        pass

    done = 0
    rename = Path.rename

    def until_then(self: Path, target: Path) -> Path:
        nonlocal done
        if done == renames:
            raise PowerCutError
        done += 1
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", until_then)
        try:
            user_folder("state")
        except PowerCutError:
            assert renames < 2
    assert user_folder("state") == home / "ferryline"
    assert (home / "ferryline" / "kept").read_text() == "what it held"
    assert former.is_symlink()
    assert former.samefile(home / "ferryline")
    assert {path.name for path in home.iterdir()} == {"ferryline", "modelferry"}


def test_the_default_store_had_another_url_where_its_folder_was_moved(home: Path, former: Path) -> None:
    assert former_store("s3://models") is None
    assert former_store((home / "ferryline" / "registry").as_uri()) is None
    assert former_store(default_store()) == (former / "registry").as_uri()
