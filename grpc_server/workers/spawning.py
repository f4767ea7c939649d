"""Starting a worker: a fresh interpreter, since neither gRPC nor ONNX Runtime survives a fork."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from ferryline.model_runtime.gate.spawning import import_path

_MODULE = "ferryline.grpc_server.workers.worker"


async def spawn() -> tuple[asyncio.subprocess.Process, socket.socket]:
    """A new worker, and our end of the socket to it.

    Raises:
        OSError: the system starts no more processes.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                _MODULE,
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(import_path())},
                start_new_session=True,  # signals from the terminal are for the supervisor
            )
        except BaseException:
            ours.close()
            raise
    return process, ours
