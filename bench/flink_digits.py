"""What the Flink benchmarks share: a stack with a trained digits model, filled topics, and jobs on it.

FERRY_BENCH_HOME names the folder of a stack that is used, and left running, instead of one of our own.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ferryline.deploy.stack.local import LocalStack
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.streams.kafka import admin_client, ensure_topics

MODEL = "digits"
EVENT_TIME = "2026-01-02 03:04:05.678"
# what is left out of a rate: start-up and the compilers' warming at one end, the last flush at the other
STEADY = (0.6, 0.95)
DEADLINE = 600.0
APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}

_FETCH = 10_000

PIPELINE = """
[pipeline]
name = "{name}"
model = "digits"
[source]
topic = "{source}"
{source_extra}
[source.features]
field = "x"
kind = "array"
size = 64
minimum = 0
maximum = 16
[source.label]
field = "actual_y"
classes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
[scoring]
topic = "{name}.out"
{scoring_extra}
"""
JSON_SOURCE = 'event_time = "ts"'


@dataclass(frozen=True)
class Bench:
    """What every contender gets.

    Attributes:
        stack: the running stack.
        kafka: its bootstrap servers.
        store: the URL of a store of this benchmark's own.
        registry: what is in it.
        manifest: the model's only version.
        entry: the generation that serves it.
        model: its file.
    """

    stack: LocalStack
    kafka: str
    store: str
    registry: Registry
    manifest: Manifest
    entry: ChannelEntry
    model: Path


@contextlib.contextmanager
def running_bench() -> Iterator[Bench]:
    """A stack with a trained model in a store of its own."""
    with tempfile.TemporaryDirectory() as folder, _running_stack(Path(folder)) as stack:
        addresses = stack.addresses()
        bucket, _, query = addresses.store.partition("?")
        store = f"{bucket}/bench-{uuid.uuid4().hex[:8]}?{query}"
        registry = Registry.open(store)
        data, path = train(), Path(folder) / "model.onnx"
        path.write_bytes(data)
        manifest = registry.publish(MODEL, data, read_facts(data))
        entry = registry.promote(MODEL, manifest.version)
        yield Bench(stack, addresses.kafka, store, registry, manifest, entry, path)


@contextlib.contextmanager
def _running_stack(folder: Path) -> Iterator[LocalStack]:
    kept = os.environ.get("FERRY_BENCH_HOME")
    # the credentials that a stack has unless it is told others
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "minioadmin")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "minioadmin")
    stack = LocalStack(home=Path(kept) if kept else folder / "stack", environ=dict(os.environ))
    try:
        stack.up()
        yield stack
    finally:
        if not kept:
            stack.down(wipe=True)


def train(seed: int = 0) -> bytes:
    """StandardScaler and SGDClassifier on scikit-learn's digits, as ONNX."""
    from skl2onnx import to_onnx

    x, y = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=seed)).fit(x, y)
    onnx_model = to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}, target_opset=18)
    return bytes(onnx_model.SerializeToString())


def json_values() -> list[bytes]:
    """The digits as JSON records, written as `json.dumps` does."""
    x, y = load_digits(return_X_y=True)
    rows = zip(x.astype(int).tolist(), y.tolist(), strict=True)
    documents = ({"ts": EVENT_TIME, "x": row, "actual_y": label} for row, label in rows)
    return [orjson.dumps(document).replace(b",", b", ").replace(b":", b": ", 1) for document in documents]


def float32_values() -> list[bytes]:
    """The digits as raw little-endian float32 tensors."""
    return [row.tobytes() for row in load_digits().data.astype("<f4")]


def fill(kafka: str, topic: str, values: Sequence[bytes], records: int, *, partitions: int = 1) -> None:
    """Write `records` records, whose values repeat, spread evenly over the partitions."""
    ensure_topics(kafka, {topic: partitions})
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 20, "batch.size": 256 * 1024})
    for number in range(records):
        key, value = str(number).encode(), values[number % len(values)]
        while True:
            try:
                producer.produce(topic, key=key, value=value, partition=number % partitions)
                break
            except BufferError:  # librdkafka's queue is full
                producer.poll(0.1)
    producer.flush()


# --- jobs -----------------------------------------------------------------------------------------


def pipeline_text(
    what: str, source: str, *, source_extra: str = JSON_SOURCE, scoring_extra: str = ""
) -> tuple[str, str]:
    """Name and text of a pipeline of its own."""
    name = f"{what}-{uuid.uuid4().hex[:8]}"
    extras = {"source_extra": source_extra, "scoring_extra": scoring_extra}
    return name, PIPELINE.format(name=name, source=source, **extras)


def output_topic(bench: Bench, name: str, *, partitions: int = 1) -> str:
    """The pipeline's output topic, made so that the broker's clock stamps each record."""
    ensure_topics(bench.kafka, {f"{name}.out": partitions}, APPEND_TIME)
    return f"{name}.out"


@contextlib.contextmanager
def running_job(bench: Bench, text: str, *arguments: str) -> Iterator[str]:
    """The real job by the stock command, cancelled in the end; gives the URL of its REST interface."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        line = [
            "-pym",
            "ferryline.flink_scoring.job",
            "--pipeline",
            file.name,
            "--store",
            bench.store,
            *arguments,
        ]
        command, environ = bench.stack.flink_command("run", "-d", *line)
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r"JobID (\w+)", ended.stdout)
    if found is None:
        raise RuntimeError(ended.stdout + ended.stderr)
    url = f"{bench.stack.addresses().flink}/jobs/{found[1]}"
    try:
        yield url
    finally:
        httpx.patch(url, timeout=10)
        while httpx.get(url, timeout=10).json()["state"] not in {"CANCELED", "FAILED"}:
            time.sleep(0.2)


# --- what came out --------------------------------------------------------------------------------


def steady_rate(bench: Bench, topic: str, records: int, *, partitions: int = 1) -> float:
    """Records per second in the steady part of the output, by the broker's clock.

    Waits until all of it is committed.
    """
    _await_written(bench, topic, records, partitions)
    times = np.sort(
        np.asarray([message.timestamp()[1] for message in _read(bench, topic, records, partitions)])
    )
    begin, end = (times[int(records * part)] for part in STEADY)
    inside = np.count_nonzero((times >= begin) & (times < end))
    return float(inside / (end - begin) * 1000)


def forget_topic(bench: Bench, topic: str) -> None:
    """Remove an output topic that was read: rounds of millions of records fill a disk."""
    with admin_client(bench.kafka) as admin:
        admin.delete_topics([topic])


def _await_written(bench: Bench, topic: str, records: int, partitions: int) -> None:
    end = time.monotonic() + DEADLINE
    with _consumer(bench, "read_uncommitted") as consumer:
        while _written(consumer, topic, partitions) < records:
            if time.monotonic() > end:
                raise TimeoutError(f"{records} records were not written in {DEADLINE:g} s")
            time.sleep(0.5)


def _written(consumer: Consumer, topic: str, partitions: int) -> int:
    places = [TopicPartition(topic, number) for number in range(partitions)]
    return sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)


def _read(bench: Bench, topic: str, records: int, partitions: int) -> Iterator[Message]:
    end, seen = time.monotonic() + DEADLINE, 0
    with _consumer(bench, "read_committed") as consumer:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        while seen < records:
            if time.monotonic() > end:
                raise TimeoutError(f"{seen} of {records} records were committed in {DEADLINE:g} s")
            messages = consumer.consume(_FETCH, 1.0)
            seen += len(messages)
            yield from messages


@contextlib.contextmanager
def _consumer(bench: Bench, isolation: str) -> Iterator[Consumer]:
    settings = {"bootstrap.servers": bench.kafka, "group.id": uuid.uuid4().hex, "isolation.level": isolation}
    consumer = Consumer({**settings, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    try:
        yield consumer
    finally:
        consumer.close()
