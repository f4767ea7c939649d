"""Which worker of a run takes which tests: those of a file on one, and all in folders `faults` on one."""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

FAULTS = "faults"
"""Tests in a folder of this name kill, freeze or restart parts of the fixture `fault_stack`."""


class FileScheduling(LoadScopeScheduling):
    """Does what `--dist loadfile` does, but for the folders of faults, whose files share one stack."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(nodeid.partition("::")[0])
        return FAULTS if FAULTS in file.parts else str(file)
