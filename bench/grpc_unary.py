"""ferry-server beside a bare grpc.aio echo server: unary 1x64 FP32 at concurrency 8, the digits classifier.

Both servers run at once, each in its own process with nothing else to do, and take turns; one client asks
both over one connection with the same bytes. The echo server answers with fixed bytes of the reply's size and
parses nothing, so it is the most that a handler in grpc.aio can reach. A second one also runs the model once
for every request: the most that a server of this model can reach which runs it request by request.

Then the same with 256 rows in each request, and streams of requests against single calls of our own. Large
requests come from grpc.aio always, since ghz waits most of the time with those (docs/benchmarks.md).

The client shares the machine with them (see `bench.grpc_load`). The second figure of each does not depend on
the client: requests per second of the server's own processor time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.grpc_load import CONCURRENCY, best_client, measure, python_client, versus
from bench.grpc_servers import INFER, STREAM, Target, echo_server, ferry_server, reply_size
from bench.measure import Comparison, parse_arguments, report
from ferryline.model_runtime.facts import read_facts
from ferryline.protos.grpc_service_pb2 import ModelInferRequest
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import Lineage, TrainingRecord, utc_now
from ferryline.trainer.export import INPUT, export_onnx
from ferryline.trainer.folded import fold

MODEL = "digits"
FEATURES = 64
MANY_ROWS = 256


def digits_model() -> bytes:
    """A digits classifier as the trainer exports it."""
    rows, labels = load_digits(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(
        rows, labels
    )
    classes = tuple(range(10))
    return export_onnx(fold(pipeline), width=FEATURES, classes=classes, opset=17, precision="float32")


def publish_digits(store: str) -> None:
    """A digits classifier, promoted."""
    data = digits_model()
    lineage = Lineage(topic="digits", offsets=(), records=1797, newest_event_time=utc_now())
    registry = Registry.open(store)
    version = registry.publish(MODEL, data, read_facts(data), TrainingRecord(lineage=lineage)).version
    registry.promote(MODEL, version)


def request_bytes(rows: int = 1) -> bytes:
    """Rows of digits, raw."""
    digits, _ = load_digits(return_X_y=True)
    request = ModelInferRequest(model_name=MODEL)
    request.inputs.add(name=INPUT, datatype="FP32", shape=[rows, FEATURES])
    request.raw_input_contents.append(digits[:rows].astype(np.float32).tobytes())
    return request.SerializeToString()


class Rounds:
    """Rounds on our server beside those on another.

    Args:
        ours: our server.
        seconds: how long a round takes.
        rounds: how many of each.
    """

    def __init__(self, ours: Target, seconds: float, rounds: int) -> None:
        self._ours = ours
        self._seconds = seconds
        self._rounds = rounds
        self._name, self._client = best_client()

    def beside(self, limit: Target, limit_name: str, request: bytes, rows: int = 1) -> list[Comparison]:
        """ModelInfer on both."""
        name, client = (self._name, self._client) if rows == 1 else ("python", python_client)
        return versus(
            lambda: measure(self._ours, request, self._seconds, client, INFER),
            lambda: measure(limit, request, self._seconds, client, INFER),
            limit_name,
            client=name,
            what=f"gRPC unary {rows}x{FEATURES}, {CONCURRENCY} at once",
            rounds=self._rounds,
            unit="requests" if rows == 1 else "rows",
            scale=rows,
        )

    def streams(self, request: bytes) -> list[Comparison]:
        """Our streams beside our own unary calls."""
        return versus(
            lambda: measure(self._ours, request, self._seconds, self._client, STREAM),
            lambda: measure(self._ours, request, self._seconds, self._client, INFER),
            "unary of ferry-server",
            client=self._name,
            what=f"gRPC streams 1x{FEATURES}, {CONCURRENCY} at once",
            rounds=self._rounds,
        )


def measurements(stack: ExitStack, folder: Path, *, quick: bool) -> Iterator[Comparison]:
    """All of them."""
    store = (folder / "registry").as_uri()
    publish_digits(store)
    ours = stack.enter_context(ferry_server(store, folder / "cache", [MODEL]))
    rounds = Rounds(ours, *((1.0, 3) if quick else (2.0, 15)))
    one, many = request_bytes(), request_bytes(MANY_ROWS)
    (model_file,) = (folder / "cache").rglob("*.onnx")
    size = reply_size(ours, one)
    bare = stack.enter_context(echo_server(INFER, size))
    running = stack.enter_context(echo_server(INFER, size, model_file))
    large = reply_size(ours, many)
    bare_many = stack.enter_context(echo_server(INFER, large))
    running_many = stack.enter_context(echo_server(INFER, large, model_file, MANY_ROWS))
    yield from rounds.beside(bare, "grpc.aio echo", one)
    yield from rounds.beside(running, "grpc.aio echo + model run", one)
    yield from rounds.beside(bare_many, "grpc.aio echo", many, MANY_ROWS)
    yield from rounds.beside(running_many, "grpc.aio echo + model run", many, MANY_ROWS)
    yield from rounds.streams(one)


def main() -> None:
    """Print the comparisons."""
    arguments = parse_arguments(__doc__)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = list(measurements(stack, folder, quick=arguments.quick))
    report(found, arguments)


if __name__ == "__main__":
    main()
