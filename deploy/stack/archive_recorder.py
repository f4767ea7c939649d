"""Records class archives: runs a whole stack once, with a scoring job on it."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from ferryline.deploy.stack.addresses import (
    FLINK_VARIABLE,
    KAFKA_VARIABLE,
    METRICS_VARIABLE,
    STORE_VARIABLE,
    Addresses,
)
from ferryline.deploy.stack.artifacts import Progress
from ferryline.deploy.stack.class_archives import RECORD_VARIABLE
from ferryline.deploy.stack.errors import InstallError
from ferryline.deploy.stack.local import LocalStack
from ferryline.registry.errors import FerryError

_PIPELINE = Path(__file__).parents[1] / "pipelines" / "digits.toml"
_RECORDS = 200
_CHECKPOINTS = 2
_DEADLINE_S = 600.0
_POLL_S = 0.2


def record_archives(stack: LocalStack, *, progress: Progress) -> None:
    """Record the class archives of Kafka and Flink once for this Java and these jars.

    A failure is told and costs speed only: without archives everything starts as it always did.

    Args:
        stack: whose Java, jars and cache they are for; it need not run.
        progress: told in a few words what is being done.
    """

    def record(folder: Path) -> None:
        progress("recording Java's classes, for faster starts: about a minute, this once")
        with _recording_stack(folder) as (recorder, addresses):
            _run_job(recorder, addresses)

    try:
        stack.record_archives(record)
    except (FerryError, OSError, subprocess.SubprocessError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        progress(f"Java's classes could not be recorded ({reason}): Flink starts more slowly")


@contextlib.contextmanager
def _recording_stack(folder: Path) -> Iterator[tuple[LocalStack, Addresses]]:
    """A running stack in a folder of its own, which writes archives as it goes down."""
    elsewhere = {KAFKA_VARIABLE, STORE_VARIABLE, FLINK_VARIABLE, METRICS_VARIABLE}
    environ = {name: value for name, value in os.environ.items() if name not in elsewhere}
    with tempfile.TemporaryDirectory(prefix="ferry-stack-") as home:
        stack = LocalStack(home=Path(home), environ={**environ, RECORD_VARIABLE: str(folder)})
        try:
            yield stack, stack.up()
        finally:
            stack.down()


def _run_job(stack: LocalStack, addresses: Addresses) -> None:
    """Have a job score records, so that most of what any job needs is loaded."""
    from ferryline.streams.kafka import (
        ensure_topics,  # an extra, as httpx is: `up` and `down` work without them
    )
    from ferryline.streams.pipeline import load_pipeline

    pipeline = load_pipeline(_PIPELINE)
    ensure_topics(addresses.kafka, {pipeline.source.topic: 1})
    command, environ = stack.flink_command(
        "run", "-d", "-pym", "ferryline.flink_scoring.job", "--pipeline", str(_PIPELINE)
    )
    _publish(environ)
    _require_success("flink run", command, environ)
    _send_records(addresses.kafka, pipeline.source.topic)
    _watch_and_cancel(addresses.flink)


def _publish(environ: Mapping[str, str]) -> None:
    """Promote a model that answers with the place of the largest feature."""
    from onnx import TensorProto, helper

    floats = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 64])
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    node = helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)
    graph = helper.make_graph([node], "largest", [floats], [label])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        ferry = [str(Path(sys.executable).with_name("ferry")), "publish", "digits", file.name, "--promote"]
        _require_success("ferry publish", ferry, environ)


def _require_success(name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
    ended = subprocess.run(
        command,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_DEADLINE_S,
    )
    if ended.returncode:
        last = (ended.stdout + ended.stderr).strip().splitlines() or ["no output"]
        raise InstallError(f"`{name}` failed: {last[-1]}")


def _send_records(kafka: str, topic: str) -> None:
    from kafka import KafkaProducer

    record = {"ts": "2026-01-01 00:00:00", "x": [1] * 64, "actual_y": 1}
    producer = KafkaProducer(bootstrap_servers=kafka)
    for _ in range(_RECORDS):
        producer.send(topic, orjson.dumps(record))
    producer.flush()
    producer.close()


def _watch_and_cancel(flink: str) -> None:
    """Wait until the job has written what it scored, and end it."""
    import httpx

    def ask(path: str) -> Any:
        return httpx.get(f"{flink}/jobs{path}", timeout=_DEADLINE_S).raise_for_status().json()

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + _DEADLINE_S
        while not condition():
            if time.monotonic() > end:
                raise InstallError(f"the job was not through after {_DEADLINE_S:.0f} s")
            time.sleep(_POLL_S)

    [job] = (f"/{each['id']}" for each in ask("")["jobs"])
    before = ask(f"{job}/checkpoints")["counts"]["completed"]
    wait(lambda: ask(f"{job}/checkpoints")["counts"]["completed"] >= before + _CHECKPOINTS)
    httpx.patch(f"{flink}/jobs{job}", timeout=_DEADLINE_S).raise_for_status()
    wait(lambda: ask(job)["state"] == "CANCELED")
