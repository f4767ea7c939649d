"""Other inference servers on this machine: MLServer with the same model, and the front end of Triton.

MLServer serves the file through `bench.mlserver_runtime`, as a team that serves ONNX there would, and logs
nothing of requests. Triton's server is the binary in the wheel of nvidia-pytriton, with no model: its ONNX
backend is not in there, so its C++ front end is all that can be compared.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import orjson
import psutil

from bench.environments import PeerMissingError, environment
from bench.grpc_servers import LIVE, START_SECONDS, Target
from ferryline.deploy.stack.ports import any_free
from ferryline.grpc_server.client.steps import SERVICE
from ferryline.protos.grpc_service_pb2 import ModelReadyRequest, ModelReadyResponse

# 0.22 of uvloop breaks this MLServer
MLSERVER = ("mlserver==1.7.1", "uvloop==0.21.0", "grpcio==1.85.1", f"onnxruntime=={version('onnxruntime')}")
TRITON = ("nvidia-pytriton==0.7.0",)
_QUIET = {"version": 1, "root": {"level": "WARNING"}, "loggers": {"mlserver": {"level": "WARNING"}}}


@contextmanager
def mlserver(folder: Path, model: str, file: Path, *, workers: int) -> Iterator[Target]:
    """MLServer with one model, ready.

    Args:
        folder: an empty one for its settings.
        model: what the model is called.
        file: the ONNX file.
        workers: its `parallel_workers`; 0 runs models in the process that answers, 1 is its default.

    Raises:
        PeerMissingError: it cannot be installed or does not start.
    """
    python = environment(MLSERVER)
    port, settings = any_free(), folder / "settings.json"
    described: dict[str, Any] = {"parallel_workers": workers, "grpc_port": port, "http_port": any_free()}
    described |= {"metrics_port": any_free(), "host": "127.0.0.1", "debug": False}
    settings.write_bytes(orjson.dumps({**described, "logging_settings": _QUIET}))
    served = {"name": model, "implementation": "mlserver_runtime.OnnxModel"}
    served_by = {**served, "parameters": {"uri": str(file), "version": "1"}}
    (folder / "model-settings.json").write_bytes(orjson.dumps(served_by))
    shutil.copy(Path(__file__).with_name("mlserver_runtime.py"), folder)
    command = [str(python.with_name("mlserver")), "start", str(folder)]
    with _running(command, folder, f"127.0.0.1:{port}", {}) as target:
        _wait(target, lambda channel: _ready(channel, model), folder)
        yield target


@contextmanager
def triton_front_end(folder: Path) -> Iterator[Target]:
    """Triton's server without a model, answering.

    Args:
        folder: an empty one for its repository and log.

    Raises:
        PeerMissingError: it cannot be installed or does not start.
    """
    site = next(environment(TRITON, "--no-deps").parent.parent.glob("lib/python*/site-packages"))
    repository, port = folder / "models", any_free()
    repository.mkdir()
    command = [str(site / "pytriton/tritonserver/bin/tritonserver"), "--model-repository", str(repository)]
    command += ["--grpc-address", "127.0.0.1", "--grpc-port", str(port)]
    command += ["--allow-http", "false", "--allow-metrics", "false"]
    libraries = {"LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs")}
    with _running(command, folder, f"127.0.0.1:{port}", libraries) as target:
        _wait(target, _live, folder)
        yield target


@contextmanager
def _running(command: Sequence[str], folder: Path, address: str, more: Mapping[str, str]) -> Iterator[Target]:
    with (folder / "log").open("wb") as log:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **more}, stdout=log, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise PeerMissingError(f"{command[0]} cannot be started: {error}") from error
    try:
        yield Target(psutil.Process(process.pid), address)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(target: Target, ready: Any, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(target.address, [("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        while time.monotonic() < deadline and target.process.status() != psutil.STATUS_ZOMBIE:
            try:
                if ready(channel):
                    return
            except grpc.RpcError:
                pass  # not yet
            time.sleep(0.1)
    last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
    raise PeerMissingError(f"{target.process.name()} did not become ready; it said {last}")


def _live(channel: grpc.Channel) -> bool:
    call = channel.unary_unary(LIVE, request_serializer=bytes, response_deserializer=bytes)
    return bool(call(b"", timeout=2))


def _ready(channel: grpc.Channel, model: str) -> bool:
    call = channel.unary_unary(
        f"/{SERVICE}/ModelReady",
        request_serializer=ModelReadyRequest.SerializeToString,
        response_deserializer=ModelReadyResponse.FromString,
    )
    return bool(call(ModelReadyRequest(name=model), timeout=2).ready)
