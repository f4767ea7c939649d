"""What the last release under the former name left on a machine, recorded from a real run of it.

A trainer learned 4000 digits and published two signed versions, a server loaded the second, and a scoring job
was stopped with a savepoint when it had scored all records: tests/recorded/modelferry.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

RECORDED = Path(__file__).parents[1] / "recorded" / "modelferry"
PIPELINE = RECORDED / "digits.toml"
SAVEPOINT = RECORDED / "savepoint"
RECORDS = 4000
VERSION = 2
DIGEST = "sha256:92c6c392a909130478eef384978410e2efd4c49842614d8972425b628da58b92"


@dataclass(frozen=True)
class Home:
    """A user's folders, under the former name where they have not been moved."""

    root: Path

    def former(self, kind: str) -> Path:
        """The folder of a kind as the last release made it."""
        return self.root / kind / "modelferry"

    def present(self, kind: str) -> Path:
        """The same, moved."""
        return self.root / kind / "ferryline"


def made(root: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with all that was recorded, which programs take for the user's."""
    home = Home(root)
    for kind in ("config", "data", "state", "cache"):
        monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(root / kind))
        source = RECORDED / kind
        if source.exists():
            shutil.copytree(source, home.former(kind))
    for name in ("FERRY_CONFIG", "FERRY_STATE", "FERRY_STORE", "FERRY_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FERRY_TRUSTED_KEYS", str(RECORDED / "trusted"))
    monkeypatch.setenv("FERRY_SIGNATURES", "required")
    # a cache of others would be refused, and git keeps no such bits
    for folder in (home.former("cache"), home.former("cache") / "blobs"):
        folder.chmod(0o700)
    # marks lie under the URL of the store, which was another one where they were recorded
    url = (home.former("data") / "registry").as_uri()
    marks = home.former("state") / "ratchet"
    (marks / "store").rename(marks / hashlib.sha256(url.encode()).hexdigest()[:16])
    return home
