"""A disk that is full: said clearly, with the right exit code; nothing is lost, and all goes on with room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.waiting import DEADLINE

ROOT = Path(__file__).parents[3]
# a disk of its own needs no privilege where the kernel lets users have a name space
OWN_DISK = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"'


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr.decode()
    found = orjson.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def trial(name: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.registry.full_disk", name, str(folder)]


def on_a_small_disk(name: str, folder: Path) -> dict[str, Any]:
    if shutil.which("unshare") is None or subprocess.run([*OWN_DISK, "true"], check=False).returncode:
        pytest.skip("this kernel gives users no disk of their own")
    folder.mkdir()
    return run([*OWN_DISK, "sh", "-c", MOUNT, "sh", str(folder), *trial(name, folder)])


def require_store_error(told: dict[str, Any], cause: str) -> None:
    assert told["code"] == 6, told
    assert cause in told["text"]


def test_a_full_folder_store_says_so_and_loses_nothing(tmp_path: Path) -> None:
    found = on_a_small_disk("full-store", tmp_path / "disk")
    for told in (*found["errors"], found["command"]):
        require_store_error(told, "No space left on device")
    assert found["command"]["text"].startswith("error: ")
    assert found["command"]["text"].count("\n") == 1
    assert found["full"] == {"generations": [1], "versions": [7, 7], "left behind": 0}
    assert found["after"] == {"generations": [1, 2], "versions": [7, 7, 65536], "left behind": 0}


def test_a_folder_store_that_may_write_no_more_says_so_and_loses_nothing(tmp_path: Path) -> None:
    found = run(trial("limited-store", tmp_path / "disk"))
    require_store_error(found["errors"][0], "File too large")
    assert found["full"] == {"generations": [1], "versions": [7, 7], "left behind": 0}
    assert found["after"]["versions"] == [7, 7, 65536]


def test_a_follower_with_a_full_cache_serves_on_and_catches_up(tmp_path: Path) -> None:
    found = on_a_small_disk("full-cache", tmp_path / "disk")
    assert "No space left on device" in found["told"]
    assert "FERRY_CACHE" in found["told"]
    assert (found["served"], found["after"], found["temporary"]) == (1, 2, [])


def test_a_full_cache_keeps_what_it_has(tmp_path: Path) -> None:
    found = on_a_small_disk("kept-cache", tmp_path / "disk")
    assert found["errors"][0]["code"] == 2
    assert "No space left on device" in found["errors"][0]["text"]
    assert (found["kept"], found["absent"], found["temporary"]) == (True, True, [])
