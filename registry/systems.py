"""The operating systems: what needs Linux says so before it begins."""

from __future__ import annotations

import sys

from ferryline.registry.errors import UsageError

_NAMES = {"darwin": "macOS", "win32": "Windows"}


def require_linux(what: str) -> None:
    """Return on Linux.

    Args:
        what: a program or a task, as the subject of a sentence.

    Raises:
        UsageError: this is another system.
    """
    if sys.platform != "linux":
        system = _NAMES.get(sys.platform, sys.platform)
        raise UsageError(
            f"{what} needs Linux, and this is {system}; run it in a container or a virtual machine with "
            "Linux (the client, and the catalogue but for publishing, work here too)"
        )
