"""MLflow's registry as a peer: its own client on a SQLite file, in an environment apart from ours.

The environment is made once, in the cache, of the versions pinned here. Telemetry is off, and nothing is
asked of the network.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.environments import environment

PINS = ("mlflow-skinny==3.17.2", "sqlalchemy==2.1.9", "alembic==1.20.1")
NAME = "MLflow, SQLite"
_WORKER = Path(__file__).with_name("mlflow_worker.py")


class MlflowPeer:
    """One MLflow registry, served by a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    def seconds(self, verb: str, *arguments: int) -> float:
        """How long MLflow took for a verb of its worker, the way to its process left out."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "MLflow ended; its words are on standard error"
        return float(json.loads(line))


@contextmanager
def mlflow_peer(folder: Path, versions: int) -> Iterator[MlflowPeer]:
    """A registry in `folder` with so many versions of one model, the last of which the alias names."""
    command = [str(environment(PINS)), str(_WORKER), f"sqlite:///{folder}/mlflow-{uuid.uuid4().hex}.db"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **quiet},
    ) as process:
        try:
            peer = MlflowPeer(process)
            peer.seconds("fill", versions)
            yield peer
        finally:
            process.terminate()
