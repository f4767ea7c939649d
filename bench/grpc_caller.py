"""Constant load on ModelInfer until standard input ends, with every reply kept, for the swap benchmark.

Run as `python -m bench.grpc_caller ADDRESS REQUEST_FILE RATE RESULT_FILE`. Each version that answers for the
first time since another did is a line on standard output: its number and the time. The result is an `.npz` of
begin, seconds and version of every request, the failures, and the distinct outputs of each version.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import time
from pathlib import Path

import grpc
import numpy as np

from bench.grpc_servers import INFER
from ferryline.protos.grpc_service_pb2 import ModelInferResponse

WORKERS = 8


class Caller:
    """Eight workers that share a rate; a worker that is late goes on at once."""

    def __init__(self, channel: grpc.aio.Channel, request: bytes, rate: float) -> None:
        self._call = channel.unary_unary(
            INFER, request_serializer=bytes, response_deserializer=ModelInferResponse.FromString
        )
        self._request = request
        self._pause = WORKERS / rate
        self._newest = 0
        self.stopping = False
        self.calls: list[tuple[float, float, int]] = []
        self.failures: list[str] = []
        self.outputs: set[tuple[int, str]] = set()

    async def run(self) -> None:
        """Call until told to stop."""
        await asyncio.gather(*(self._work(number) for number in range(WORKERS)))

    async def _work(self, number: int) -> None:
        due = time.monotonic() + number * self._pause / WORKERS
        while not self.stopping:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self._pause, time.monotonic())
            begun = time.monotonic()
            try:
                reply = await self._call(self._request)
            except grpc.RpcError as error:
                self.failures.append(str(error))
                continue
            self._keep(begun, time.monotonic(), reply)

    def _keep(self, begun: float, ended: float, reply: ModelInferResponse) -> None:
        version = int(reply.model_version)
        self.calls.append((begun, ended - begun, version))
        self.outputs.add((version, digest(reply.raw_output_contents)))
        if version != self._newest:
            self._newest = version
            print(version, ended, flush=True)


def digest(raws: object) -> str:
    """One word for the bytes of all outputs."""
    return hashlib.blake2b(b"|".join(raws), digest_size=16).hexdigest()  # type: ignore[arg-type]  # bytes


async def main(address: str, request: bytes, rate: float, result_file: str) -> None:
    """Call until standard input ends."""
    gc.collect()
    gc.freeze()  # a collection here would be latency of the server's
    gc.disable()
    async with grpc.aio.insecure_channel(address) as channel:
        caller = Caller(channel, request, rate)
        running = asyncio.create_task(caller.run())
        await asyncio.to_thread(sys.stdin.read)
        caller.stopping = True
        await running
    begun, seconds, versions = zip(*caller.calls, strict=True)
    np.savez(
        result_file,
        begun=np.array(begun),
        seconds=np.array(seconds),
        versions=np.array(versions),
        failures=np.array(caller.failures, dtype=str),
        outputs=np.array([f"{version} {found}" for version, found in sorted(caller.outputs)]),
    )


if __name__ == "__main__":
    server, file, wanted, result = sys.argv[1:]
    asyncio.run(main(server, Path(file).read_bytes(), float(wanted), result))
