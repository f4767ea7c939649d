"""The real `ferry-server` on free ports, and what a test asks of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
from grpc_health.v1 import health_pb2, health_pb2_grpc

from grpc_server.client import NO_RETRY, Answer, Client
from model_runtime.facts import read_facts
from registry import Registry
from tests.grpc_server.shop import wait_for

COMMAND = str(Path(sys.executable).with_name("ferry-server"))
START_SECONDS = 120.0
STOP_SECONDS = 60.0
ROW = np.array([[1, 2, 3, 4]], dtype=np.float32)


class ServerProcess:
    """A running server; its log is in `log_file`."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file
        wait_for(lambda: bool(self.events("listening")) or process.poll() is not None, "start", START_SECONDS)
        assert process.poll() is None, log_file.read_text()
        found = self.events("listening")[0]
        self.address = f"127.0.0.1:{found['port']}"
        self.metrics_url = f"http://127.0.0.1:{found['metrics_port']}/metrics"
        self.http_address = f"127.0.0.1:{found['http_port']}"
        self.client = plain_client(self.address)
        self.channel = grpc.insecure_channel(self.address)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self._log_file.read_bytes().splitlines(keepends=True)
        # the last line may be half written
        parsed = [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"\n")]
        return [event for event in parsed if event["event"] == name]

    def log(self) -> str:
        return self._log_file.read_text()

    def plus(self, model: str = "m", version: str = "") -> float:
        """What the model adds to its input: the mark of a file made by `model_files.plus`."""
        return added(self.client.infer(model, {"x": ROW}, version=version))

    def health(self, name: str = "") -> str:
        stub = health_pb2_grpc.HealthStub(self.channel)
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    def wait_until_healthy(self) -> None:
        wait_for(lambda: self.health() == "SERVING", "readiness", START_SECONDS)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(self.metrics_url, timeout=5) as reply:  # noqa: S310 - http on this machine
            lines = reply.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def metric(self, name: str, model: str = "m") -> float:
        return self.metrics()[f'{name}{{channel="production",model="{model}"}}']

    def close(self) -> None:
        self.client.close()
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def plain_client(address: str, timeout: float = 10.0) -> Client:
    """A client that hides nothing: what is asked is what is sent, and sent once."""
    return Client(address, timeout=timeout, retry=NO_RETRY, check_inputs=False)


def added(answer: Answer) -> float:
    difference = answer["y"] - ROW
    assert np.ptp(difference) == 0, f"no single version gives {answer.outputs}"
    return float(difference[0, 0])


class Site:
    """A folder registry and the servers that a test starts on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "registry"
        self.store = self.root.as_uri()
        self.registry = Registry.open(self.store, actor="tester")

    def publish(self, data: bytes, model: str = "m", *, facts_of: bytes | None = None) -> int:
        version = self.registry.publish(model, data, read_facts(facts_of or data)).version
        self.registry.promote(model, version)
        return version

    def command(self, models: Sequence[str], flags: Sequence[str]) -> list[str]:
        command = [COMMAND, "--store", self.store, "--cache", str(self.folder / "cache")]
        command += ["--port", "0", "--http-port", "0", "--metrics-port", "0"]
        command += ["--poll-seconds", "0.1", "--log-format", "json"]
        return [*command, *(part for model in models for part in ("--model", model)), *flags]

    @contextmanager
    def server(self, *models: str, flags: Sequence[str] = ()) -> Iterator[ServerProcess]:
        log_file = self.folder / f"server-{len(list(self.folder.glob('server-*')))}.log"
        with log_file.open("wb") as log:
            named = models or ([] if "--all" in flags else ["m"])
            process = subprocess.Popen(self.command(named, flags), stderr=log)
        try:
            server = ServerProcess(process, log_file)
        except BaseException:
            process.kill()
            raise
        try:
            yield server
        finally:
            server.close()

    def run_to_its_end(self, *models: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        command = self.command(models or ["m"], flags)
        return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)
