"""The catalogue without what only Unix has: a simulation of Windows, for want of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ferryline.registry.catalogue import Registry
from tests.support.waiting import DEADLINE

WITHOUT = """
import os, platformdirs, sys  # which takes the Unix that this is
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "getuid", "geteuid", "memfd_create"):
    delattr(os, name)
sys.argv = ["ferry", *sys.argv[1:]]
from ferryline.registry.cli.app import main
main()
"""


@pytest.mark.usefixtures("published")
def test_versions_are_listed_and_promoted_and_keys_are_made(store_url: str, tmp_path: Path) -> None:
    environ = {"FERRY_STORE": store_url, "HOME": str(tmp_path), "PATH": ""}

    def ferry(*words: str) -> str:
        command = [sys.executable, "-c", WITHOUT, *words]
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "digits" in ferry("list")
    ferry("promote", "digits@1")
    head = Registry.open(store_url).channel("digits").head()
    assert head is not None
    assert head.version == 1
    ferry("keygen", "ada", "--out", str(tmp_path / "keys"))
