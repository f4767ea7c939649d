"""Java and Go as they are found: each is asked for its release."""

import os
from pathlib import Path

import pytest

from ferryline.deploy.stack.errors import MissingToolError
from ferryline.deploy.stack.tools import find_go, find_java_home


def script(file: Path, *, prints: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho '{prints}'\n")
    file.chmod(0o755)
    return file


def test_java_home_is_used_if_it_is_new_enough(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "java", prints='openjdk version "17.0.1"')
    assert find_java_home({"JAVA_HOME": str(tmp_path)}) == tmp_path


def test_an_old_java_home_gives_way_to_the_wheel(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "java", prints='openjdk version "11.0.1"')
    found = find_java_home({"JAVA_HOME": str(tmp_path)})
    assert found != tmp_path
    assert (found / "bin" / "java").exists()


def test_go_on_the_path_is_used_if_it_is_new_enough(tmp_path: Path) -> None:
    go = script(tmp_path / "go", prints="go version go1.24.1 linux/amd64")
    assert find_go({"PATH": f"{tmp_path}{os.pathsep}/bin"}) == go


def test_an_old_go_gives_way_to_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "old" / "go", prints="go version go1.19 linux/amd64")
    wheel = script(tmp_path / "venv" / "go", prints="go version go1.27.0 linux/amd64")
    monkeypatch.setattr("sys.executable", str(tmp_path / "venv" / "python"))
    assert find_go({"PATH": f"{tmp_path / 'old'}{os.pathsep}/bin"}) == wheel


def test_no_go_at_all_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(MissingToolError, match=r"ferryline\[stack\]"):
        find_go({"PATH": str(tmp_path)})
