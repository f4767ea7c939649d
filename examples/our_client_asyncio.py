"""Our client for asyncio: `our_client_asyncio.py [ADDRESS]`."""

import asyncio
import sys

from digit import THREE

from ferryline.grpc_server.client import AsyncClient

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"


async def main() -> None:
    """Ask a hundred times at once."""
    async with AsyncClient(address, timeout=5) as client:
        await client.wait_until_ready("digits")
        answers = await asyncio.gather(*(client.infer("digits", THREE) for _ in range(100)))
        print("digits", {int(answer["label"][0]) for answer in answers})
        print("versions", {answer.model.version for answer in answers})


asyncio.run(main())
