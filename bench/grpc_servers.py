"""The servers of the gRPC benchmarks, each a process of its own: ferry-server, and a bare grpc.aio server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import orjson
import psutil

from grpc_server.endpoint import SERVICE
from protos.grpc_service_pb2 import ServerReadyRequest, ServerReadyResponse

INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
LIVE = f"/{SERVICE}/ServerLive"
START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load."""

    process: psutil.Process
    address: str

    def cpu_seconds(self) -> float:
        """Processor time it and the processes below it have used so far."""
        used = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            times = process.cpu_times()
            used += times.user + times.system
        return used

    def resident_bytes(self) -> int:
        """Its memory."""
        return int(self.process.memory_info().rss)


@contextmanager
def ferry_server(
    store: str, cache: Path, models: Sequence[str], *flags: str, listening_only: bool = False
) -> Iterator[Target]:
    """ferry-server on a registry, ready; or only listening, for those who measure how long the rest takes."""
    command = [str(Path(sys.executable).with_name("ferry-server")), "--log-format", "json", "--no-http"]
    command += ["--port", "0", "--metrics-port", "0", "--store", store, "--cache", str(cache), *flags]
    command += [part for model in models for part in ("--model", model)]
    log = cache.with_suffix(".log")
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            target = Target(psutil.Process(process.pid), f"127.0.0.1:{_port(log, process)}")
            if not listening_only:
                wait_until_ready(target)
            yield target
        finally:
            process.terminate()


@contextmanager
def echo_server(method: str, reply_size: int, *model: Path) -> Iterator[Target]:
    """The bare server; with a model, it runs that for every request."""
    command = [sys.executable, "-m", "bench.grpc_echo", method, str(reply_size), *map(str, model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Target(psutil.Process(process.pid), f"127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.terminate()


def wait_until_ready(target: Target) -> None:
    """Return when every model serves."""
    deadline = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(target.address) as channel:
        ready = channel.unary_unary(
            f"/{SERVICE}/ServerReady",
            request_serializer=ServerReadyRequest.SerializeToString,
            response_deserializer=ServerReadyResponse.FromString,
        )
        while not ready(ServerReadyRequest(), wait_for_ready=True, timeout=START_SECONDS).ready:
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.02)


def reply_size(target: Target, request: bytes, method: str = INFER) -> int:
    """How many bytes a reply has."""
    with grpc.insecure_channel(target.address) as channel:
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        return len(call(request))


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_bytes().splitlines(keepends=True):
            if line.startswith(b"{") and line.endswith(b"\n"):
                event = orjson.loads(line)
                if event["event"] == "listening":
                    return int(event["port"])
        time.sleep(0.02)
    raise AssertionError(f"ferry-server did not begin to listen: {log.read_text()}")
