"""The limit of the unary benchmark: a bare grpc.aio server that answers a request's bytes with fixed bytes.

It parses nothing and computes nothing; its replies have the size of the real ones. Writes its port to
standard output and serves until it is ended. Run as `python -m bench.grpc_echo METHOD REPLY_BYTES`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc


async def serve(method: str, reply: bytes) -> None:
    """Answer `method` with `reply` until the process is ended."""
    service, _, name = method.strip("/").partition("/")

    async def answer(_request: bytes, _context: Any) -> bytes:
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
    asyncio.run(serve(sys.argv[1], bytes(int(sys.argv[2]))))
