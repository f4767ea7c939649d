"""The wheel of this checkout, and environments that it is installed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "ferry",
    "ferry-trainer",
    "ferry-server",
    "ferry-sql",
    "ferry-dlq",
    "ferry-stack",
    "ferry-demo",
    "ferry-feed",
)


def uv() -> str:
    """The uv that make fetched."""
    found = shutil.which("uv", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("needs uv, on the path or in .tools/bin, where make puts it")
    return found


def build_wheel(folder: Path) -> Path:
    """Builds the wheel by way of the source distribution, as it would be published."""
    run(uv(), "build", "--quiet", "--python", sys.executable, "--out-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(
    *command: str,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    status: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, which must be this status unless that is None."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=None if environ is None else dict(environ),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert status in {None, done.returncode}, (
        f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, which knows nothing of the checkout."""

    folder: Path

    @classmethod
    def made(cls, folder: Path, *, python: str = sys.executable) -> Environment:
        """An empty one."""
        run(uv(), "venv", "--quiet", "--python", python, str(folder))
        return cls(folder)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, *what: str, options: Sequence[str] = ()) -> None:
        """Installs requirements."""
        run(uv(), "pip", "install", "--quiet", "--python", str(self.python), *options, *what)

    def ferry(self, script: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs one of the scripts for a user who has nothing else, in an empty folder."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environ = {
            "HOME": str(home),
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "COLUMNS": "100",
            **more,
        }
        return run(str(self.folder / "bin" / script), *words, folder=home, environ=environ, status=None)


def works_or_says_what_is_missing(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the line that a command ended with status 2 by, or nothing where it worked; fails otherwise."""
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode == 0:
        return ""
    assert done.returncode == 2, (done.args, done.returncode, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: "), line
    return line
