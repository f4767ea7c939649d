"""What makes a test a unit test: it starts no process, and model files are judged in its own."""

from __future__ import annotations

import sys
from pathlib import Path

from ferryline.model_runtime.gate.judgement import judge
from ferryline.model_runtime.gate.protocol import Request
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import GoldenRows, ModelFacts
from ferryline.registry.errors import RefusedError

_STARTS = frozenset({"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"})


class NoProcesses:
    """Refuses to start a process while `forbidden` is set; made once for a Python process."""

    def __init__(self) -> None:
        self.forbidden = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.forbidden and event in _STARTS:
            raise RuntimeError(f"a unit test started a process ({event} {arguments}); move it to component/")


class GateInProcess:
    """Stands for the helper of the load gate: judges in this process, and files that are equal once."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[Request, bytes | None], ModelFacts | RefusedError] = {}

    def judge(self, request: Request, candidate: int, golden: int | None = None) -> ModelFacts:
        """As `GateKeeper.judge`."""
        rows = None if golden is None else _path(golden).read_bytes()
        if digest_of(_path(candidate).read_bytes()) != request.digest:
            found = _judge(request, candidate, rows)
        elif (found := self._verdicts.get((request, rows))) is None:
            found = self._verdicts[request, rows] = _judge(request, candidate, rows)
        if isinstance(found, RefusedError):
            raise RefusedError(found.gate, found.reason, found.remedy)
        return found


def _judge(request: Request, candidate: int, rows: bytes | None) -> ModelFacts | RefusedError:
    golden = None if rows is None else GoldenRows.model_validate_json(rows)
    try:
        return judge(_path(candidate), request.digest, golden, request.limits, lambda _stage: None)
    except RefusedError as refusal:
        return refusal


def _path(file: int) -> Path:
    # as the helper's child does
    return Path(f"/proc/self/fd/{file}")
