"""The limit of the unary benchmark: a bare grpc.aio server that answers a request's bytes with fixed bytes.

It parses nothing and computes nothing; its replies have the size of the real ones. Writes its port to
standard output and serves until it is ended. With a model file it runs that once for every request, on rows
of zeros, before it answers: what serving the model costs when nothing is read, checked or said.

Run as `python -m bench.grpc_echo METHOD REPLY_BYTES [MODEL_FILE ROWS]`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.session import OnnxSession


def model_run(file: Path, rows: int) -> Callable[[], object]:
    """Runs the model in `file` on so many rows of zeros."""
    session = OnnxSession(file)
    facts = read_facts(file.read_bytes())
    feeds = {spec.name: np.zeros([rows, *spec.shape[1:]], spec.dtype) for spec in facts.inputs}
    return lambda: session.run(feeds)


async def serve(method: str, reply: bytes, run: Callable[[], object] | None) -> None:
    """Answer `method` with `reply`, after `run`, until the process is ended."""
    service, _, name = method.strip("/").partition("/")

    async def answer(_request: bytes, _context: Any) -> bytes:
        if run is not None:
            run()
        return reply

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        service, {name: grpc.unary_unary_rpc_method_handler(answer)}
    )
    server.add_generic_rpc_handlers((handler,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    method, reply_bytes, *model = sys.argv[1:]
    run = model_run(Path(model[0]), int(model[1])) if model else None
    asyncio.run(serve(method, bytes(int(reply_bytes)), run))
