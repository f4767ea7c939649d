"""The servers of the gRPC benchmarks, each a process of its own: ferry-server, and a bare grpc.aio server.

Both run in an environment with what `ferryline[grpc]` asks for and nothing else, as they are installed where
models are served: there grpcio is the newest, while in this environment apache-beam holds it back. Set
FERRY_BENCH_PYTHON to run them with another Python, such as this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grpc
import orjson
import psutil

from bench.environments import PeerMissingError, environment
from ferryline.grpc_server.client.steps import SERVICE
from ferryline.protos.grpc_service_pb2 import ServerReadyRequest, ServerReadyResponse

INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"
LIVE = f"/{SERVICE}/ServerLive"
START_SECONDS = 120.0
GRPCIO = "grpcio==1.85.1"


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


@cache
def python() -> Path:
    """The Python of the servers."""
    given = os.environ.get("FERRY_BENCH_PYTHON")
    if given:
        return Path(given)
    project = Path(__file__).parents[1]
    try:
        return environment(
            (GRPCIO,), "--editable", f"{project}[grpc]", of=(project / "pyproject.toml").read_text()
        )
    except PeerMissingError as error:
        sys.stderr.write(f"servers run in this environment, with its older grpcio: {error}\n")
        return Path(sys.executable)


@contextmanager
def ferry_server(
    store: str, folder: Path, models: Sequence[str], *flags: str, listening_only: bool = False
) -> Iterator[Target]:
    """ferry-server on a registry, ready; or only listening, for those who measure how long the rest takes."""
    command = [str(python().with_name("ferry-server")), "--log-format", "json", "--no-http"]
    command += ["--port", "0", "--metrics-port", "0", "--store", store, "--cache", str(folder), *flags]
    command += [part for model in models for part in ("--model", model)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            target = Target(psutil.Process(process.pid), f"127.0.0.1:{_port(log, process)}")
            if not listening_only:
                wait_until_ready(target)
            yield target
        finally:
            process.terminate()


@contextmanager
def echo_server(method: str, reply_size: int, model: Path | None = None, rows: int = 1) -> Iterator[Target]:
    """The bare server; with a model, it runs that on `rows` rows for every request."""
    command = [str(python()), "-m", "bench.grpc_echo", method, str(reply_size)]
    command += [] if model is None else [str(model), str(rows)]
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
