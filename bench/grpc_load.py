"""Load on a gRPC server, the same bytes again and again over one connection, eight at once.

With ghz on the PATH (go install github.com/bojand/ghz/cmd/ghz@v0.120.0) it is the client, and takes less of
the machine that client and server share; else grpc.aio in this process is.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import orjson

from bench.grpc_servers import INFER, STREAM, Target
from bench.measure import Comparison, alternate, compare

CONCURRENCY = 8
UNBOUNDED = ("grpc.max_receive_message_length", -1)
STREAMED = 2000
"""Requests of one stream, where a client wants to know beforehand."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one round found: requests per second as the client saw them, and per second of server CPU."""

    per_second: float
    per_cpu_second: float


Client = Callable[[str, str, bytes, float], tuple[int, float]]
"""Asks an address a method with the bytes of a request for some seconds: how often, in how many seconds."""


def best_client() -> tuple[str, Client]:
    """The one that takes least of the machine, and its name."""
    return ("ghz", ghz_client) if shutil.which("ghz") else ("python", python_client)


def measure(target: Target, request: bytes, seconds: float, client: Client, method: str = INFER) -> Load:
    """One round."""
    cpu = target.cpu_seconds()
    done, elapsed = client(target.address, method, request, seconds)
    return Load(done / elapsed, done / (target.cpu_seconds() - cpu))


def python_client(address: str, method: str, request: bytes, seconds: float) -> tuple[int, float]:
    """Calls from grpc.aio; every one must be answered."""
    caller = _stream if method == STREAM else _unary

    async def call_all() -> tuple[int, float]:
        async with grpc.aio.insecure_channel(address, [UNBOUNDED]) as channel:
            begun = time.perf_counter()
            end = begun + seconds
            done = await asyncio.gather(*(caller(channel, method, request, end) for _ in range(CONCURRENCY)))
            return sum(done), time.perf_counter() - begun

    return asyncio.run(call_all())


def ghz_client(address: str, method: str, request: bytes, seconds: float) -> tuple[int, float]:
    """Calls from ghz; every one must be answered."""
    command = ["ghz", "--insecure", "--proto", "protos/grpc_service.proto", "--call", method.strip("/")]
    command += ["--connections", "1", "--concurrency", str(CONCURRENCY), "--duration", f"{seconds}s"]
    command += ["--duration-stop", "wait", "--format", "json", "--max-recv-message-size", "64MiB"]
    command += ["--binary"] if request else ["--data", "{}"]
    each = STREAMED if method == STREAM else 1
    command += ["--stream-call-count", str(each)] if each > 1 else []
    begun = time.perf_counter()
    run = subprocess.run([*command, address], input=request, check=False, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    found = orjson.loads(run.stdout)
    answered = found["statusCodeDistribution"]
    assert set(answered) == {"OK"}, answered
    elapsed = found["total"] / 1e9
    assert elapsed <= time.perf_counter() - begun
    return int(answered["OK"]) * each, elapsed


def versus(
    ours: Callable[[], Load],
    limit: Callable[[], Load],
    limit_name: str,
    *,
    client: str,
    what: str,
    rounds: int,
    unit: str = "requests",
    scale: float = 1.0,
) -> list[Comparison]:
    """Both figures of ours against one limit: as the client saw them, and by the server's own CPU time."""
    loads: tuple[list[Load], list[Load]] = [], []

    def kept(call: Callable[[], Load], where: list[Load]) -> float:
        where.append(call())
        return where[-1].per_second * scale

    pairs = alternate(lambda: kept(ours, loads[0]), lambda: kept(limit, loads[1]), rounds=rounds)
    by_round = itertools.islice(zip(*loads, strict=True), 1, None)
    per_cpu = [(mine.per_cpu_second * scale, other.per_cpu_second * scale) for mine, other in by_round]
    return [
        compare(f"{what} ({client})", f"{unit}/s", limit_name, pairs),
        compare(f"{what}, server alone", f"{unit}/cpu s", limit_name, per_cpu),
    ]


async def _unary(channel: grpc.aio.Channel, method: str, request: bytes, end: float) -> int:
    call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    done = 0
    while time.perf_counter() < end:
        await call(request)
        done += 1
    return done


async def _stream(channel: grpc.aio.Channel, method: str, request: bytes, end: float) -> int:
    sent = 0

    def requests() -> Iterator[bytes]:
        nonlocal sent
        while time.perf_counter() < end:
            sent += 1
            yield request

    call = channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)
    done = 0
    async for _ in call(requests()):
        done += 1
    assert done == sent, f"{done} answers to {sent} requests"
    return done
