"""Programs that start at the same time, and find a folder of the former name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sizes import sized
from tests.support.waiting import DEADLINE

ASK = """
import os, sys
from ferryline.registry.folders import user_folder
import platformdirs
print("ready", flush=True)
for home in sys.stdin:
    for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
        os.environ[f"XDG_{kind}_HOME"] = home.strip()
    print(user_folder("state"), flush=True)
"""
PROGRAMS = 3


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_all_get_the_same_folder_and_one_link_is_left(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", ASK]
    programs = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(PROGRAMS)
    ]
    try:
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        for number in range(sized(100, 1_000)):
            _one_round(tmp_path / str(number), programs, kind)
    finally:
        said = [program.communicate(timeout=DEADLINE)[1] for program in programs]
    assert all(line.startswith("note: moved ") for text in said for line in text.splitlines())
    assert sum(len(text.splitlines()) for text in said) == sized(100, 1_000)


def _one_round(home: Path, programs: list[subprocess.Popen[str]], kind: str) -> None:
    home.mkdir()
    if kind == "folder":
        (home / "modelferry").mkdir()
    else:
        (home / "large-disk").mkdir()
        (home / "modelferry").symlink_to("large-disk")
    (home / "modelferry" / "kept").write_text("what it held")
    for program in programs:
        assert program.stdin is not None
        program.stdin.write(f"{home}\n")
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == f"{home / 'ferryline'}\n"
    assert {path.name for path in home.iterdir()} - {"large-disk"} == {"ferryline", "modelferry"}
    assert (home / "ferryline" / "kept").read_text() == "what it held"
    assert (home / "modelferry").readlink() == Path("ferryline")
