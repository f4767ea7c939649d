"""Environments of their own for peers, made once, in the cache, of the versions pinned by those who ask."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ferryline.deploy.stack.home import cache_folder


class PeerMissingError(Exception):
    """A peer cannot be installed or started on this machine; its text says why."""


def environment(pins: Sequence[str], *options: str, of: str = "") -> Path:
    """The Python of an environment with exactly `pins` and what they ask for.

    Args:
        pins: requirements with versions.
        options: of pip.
        of: whatever else decides what is installed; another text is another environment.

    Raises:
        PeerMissingError: pip cannot install them.
    """
    digest = hashlib.sha256("\n".join((*pins, *options, *filter(None, (of,)))).encode()).hexdigest()[:8]
    folder = cache_folder(os.environ) / "bench" / f"{pins[0].replace('==', '-')}-{digest}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.write(f"making an environment with {', '.join(pins)}\n")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        ended = subprocess.run([*command, *options, *pins], capture_output=True, text=True, check=False)
        if ended.returncode:
            raise PeerMissingError(f"pip cannot install {pins[0]}: {(ended.stderr or '-').splitlines()[-1]}")
        complete.touch()
    return python
