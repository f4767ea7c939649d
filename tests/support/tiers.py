"""The four tiers of tests: the folder that a test lies in says which one it belongs to."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Tier(StrEnum):
    """A tier, named as its folders are: `tests/<package>/<tier>/`.

    Attributes:
        UNIT: no socket, no process.
        COMPONENT: loopback sockets, one server or store for a module, child processes of our own.
        SYSTEM: the parts of the local stack, and services as the processes that a user starts.
        NIGHTLY: what takes too long for every change, and what will be deleted soon.
    """

    UNIT = "unit"
    COMPONENT = "component"
    SYSTEM = "system"
    NIGHTLY = "nightly"


_TIERS = {str(tier): tier for tier in Tier}


def tier_of(path: Path) -> Tier | None:
    """Returns the tier of a test file or of a folder of tests, or None for anything else."""
    return next((_TIERS[part] for part in reversed(path.parts) if part in _TIERS), None)


def package_of(path: str) -> str:
    """Returns the package whose tests a file holds: `registry` for `tests/registry/unit/test_log.py`."""
    parts = Path(path).parts
    return parts[parts.index("tests") + 1] if "tests" in parts[:-1] else ""
