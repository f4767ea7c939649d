"""ferry-server beside a bare grpc.aio echo server: unary 1x64 FP32 at concurrency 8, the digits classifier.

Both servers run at once, each in its own process with nothing else to do, and take turns; one client asks
both over one connection with the same bytes. The echo server answers with fixed bytes of the reply's size and
parses nothing, so it is the most that a handler in grpc.aio can reach. A second one also runs the model once
for every request: the most that a server of this model can reach which runs it request by request.

The client shares the machine with them. With ghz on the PATH (go install
github.com/bojand/ghz/cmd/ghz@v0.120.0) it is the client, and takes less of the machine; else grpc.aio in this
process is. The second figure does not depend on the client: requests per second of the server's own processor
time.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import orjson
import psutil
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.measure import Comparison, alternate, compare, parse_arguments, report
from grpc_server.endpoint import SERVICE
from model_runtime.facts import read_facts
from protos.grpc_service_pb2 import ModelInferRequest, ServerReadyRequest, ServerReadyResponse
from registry.catalogue import Registry
from registry.documents import Lineage, TrainingRecord, utc_now

CONCURRENCY = 8
MODEL = "digits"
METHOD = f"/{SERVICE}/ModelInfer"
START_SECONDS = 30.0
FEATURES = 64


@dataclass(frozen=True, slots=True)
class Load:
    """What one round found: requests per second as the client saw them, and per second of server CPU."""

    per_second: float
    per_cpu_second: float


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load."""

    process: psutil.Process
    address: str

    def cpu_seconds(self) -> float:
        """Processor time it has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def publish_digits(store: str) -> None:
    """A digits classifier as the trainer exports it, promoted."""
    rows, labels = load_digits(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(
        rows, labels
    )
    exported = to_onnx(
        pipeline,
        rows[:1].astype(np.float32),
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    data = bytes(exported.SerializeToString())
    lineage = Lineage(topic="digits", offsets=(), records=len(rows), newest_event_time=utc_now())
    registry = Registry.open(store)
    version = registry.publish(MODEL, data, read_facts(data), TrainingRecord(lineage=lineage)).version
    registry.promote(MODEL, version)


def request_bytes() -> bytes:
    """One row of digits, raw."""
    rows, _ = load_digits(return_X_y=True)
    request = ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="X", datatype="FP32", shape=[1, FEATURES])
    request.raw_input_contents.append(rows[:1].astype(np.float32).tobytes())
    return request.SerializeToString()


@contextmanager
def ferry_server(folder: Path) -> Iterator[Target]:
    """ferry-server on a registry of its own, ready."""
    store = (folder / "registry").as_uri()
    publish_digits(store)
    command = [str(Path(sys.executable).with_name("ferry-server")), "--model", MODEL, "--log-format", "json"]
    command += [
        "--port",
        "0",
        "--no-http",
        "--metrics-port",
        "0",
        "--store",
        store,
        "--cache",
        str(folder / "cache"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            port = next(
                line["port"] for line in map(orjson.loads, process.stderr) if line["event"] == "listening"
            )
            target = Target(psutil.Process(process.pid), f"127.0.0.1:{port}")
            wait_until_ready(target)
            yield target
        finally:
            process.terminate()


@contextmanager
def echo_server(reply_size: int, *model: Path) -> Iterator[Target]:
    """The bare server; with a model, it runs that for every request."""
    command = [sys.executable, "-m", "bench.grpc_echo", METHOD, str(reply_size), *map(str, model)]
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
        while not ready(ServerReadyRequest()).ready:
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)


def reply_size(target: Target, request: bytes) -> int:
    """How many bytes a reply has."""
    with grpc.insecure_channel(target.address) as channel:
        infer = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        return len(infer(request))


def measure(target: Target, request: bytes, seconds: float, client: Callable[..., int]) -> Load:
    """One round."""
    cpu, begun = target.cpu_seconds(), time.perf_counter()
    done = client(target.address, request, seconds)
    elapsed, used = time.perf_counter() - begun, target.cpu_seconds() - cpu
    return Load(done / elapsed, done / used)


def python_client(address: str, request: bytes, seconds: float) -> int:
    """Calls from grpc.aio; every one must be answered."""

    async def call_all() -> int:
        async with grpc.aio.insecure_channel(address) as channel:
            infer = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
            end = time.perf_counter() + seconds

            async def call() -> int:
                done = 0
                while time.perf_counter() < end:
                    await infer(request)
                    done += 1
                return done

            return sum(await asyncio.gather(*(call() for _ in range(CONCURRENCY))))

    return asyncio.run(call_all())


def ghz_client(address: str, request: bytes, seconds: float) -> int:
    """Calls from ghz; every one must be answered."""
    command = ["ghz", "--insecure", "--proto", "protos/grpc_service.proto", "--call", METHOD.strip("/")]
    command += ["--connections", "1", "--concurrency", str(CONCURRENCY), "--duration", f"{seconds}s"]
    command += ["--duration-stop", "wait", "--binary", "--format", "json", address]
    found = orjson.loads(subprocess.run(command, input=request, check=True, capture_output=True).stdout)
    answered = found["statusCodeDistribution"]
    assert set(answered) == {"OK"}, answered
    return int(answered["OK"])


def versus(
    ours: Target, limit: Target, limit_name: str, call: Callable[[Target], Load], client: str, rounds: int
) -> list[Comparison]:
    """Both figures of ours against one limit."""
    loads: dict[str, list[Load]] = {ours.address: [], limit.address: []}

    def round_of(target: Target) -> float:
        loads[target.address].append(call(target))
        return loads[target.address][-1].per_second

    pairs = alternate(lambda: round_of(ours), lambda: round_of(limit), rounds=rounds)
    by_round = zip(loads[ours.address][1:], loads[limit.address][1:], strict=True)
    per_cpu = [(mine.per_cpu_second, bare.per_cpu_second) for mine, bare in by_round]
    return [
        compare(f"gRPC unary 1x64, {CONCURRENCY} at once ({client})", "requests/s", limit_name, pairs),
        compare("gRPC unary 1x64, server alone", "requests/cpu s", limit_name, per_cpu),
    ]


def main() -> None:
    """Print the comparisons."""
    arguments = parse_arguments(__doc__)
    seconds, rounds = (1.0, 3) if arguments.quick else (2.0, 15)
    name, client = ("ghz", ghz_client) if shutil.which("ghz") else ("python", python_client)
    request = request_bytes()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = stack.enter_context(ferry_server(folder))
        size = reply_size(ours, request)
        (model_file,) = (folder / "cache").rglob("*.onnx")
        bare = stack.enter_context(echo_server(size))
        running = stack.enter_context(echo_server(size, model_file))

        def call(target: Target) -> Load:
            return measure(target, request, seconds, client)

        found = versus(ours, bare, "grpc.aio echo", call, name, rounds)
        found += versus(ours, running, "grpc.aio echo + model run", call, name, rounds)
    report(found, arguments)


if __name__ == "__main__":
    main()
