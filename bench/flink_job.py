"""The Flink job beside its limit: a plain consume, decode, score, produce loop in one Python process.

Both read the same pre-filled topic of digits records (JSON, 64 whole numbers each), score them with the same
model, at parallelism 1, and write scored records; the broker is on the same machine. The rate is that of the
steady state, by the Kafka timestamps of the output: the first and the last tenth are left out, and start-up
with them. The plain loop uses kafka-python, which this project depends on; that client costs more than
decoding and scoring do, so a ratio above 1 says that Flink's own client is faster, not that Flink is free.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.measure import compare, parse_arguments, report
from deploy.stack.local import LocalStack
from flink_scoring.options import Guarantee
from flink_scoring.scorer import Scorer
from model_runtime.facts import read_facts
from model_runtime.served import ServedModel
from model_runtime.session import OnnxSession
from registry.catalogue import Registry
from registry.documents import ChannelEntry, Manifest, utc_now
from streams.kafka import ensure_topics
from streams.pipeline import Pipeline, parse_pipeline

LIMIT = "plain loop, kafka-python"
EDGE = 0.1
BATCH = 1000
DEADLINE = 600.0

PIPELINE = """
[pipeline]
name = "{name}"
model = "digits"
[source]
topic = "{source}"
event_time = "ts"
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
checkpoint_seconds = 5.0
"""


@dataclass(frozen=True)
class Bench:
    """What every contender gets: a stack, a filled topic, and one published model."""

    stack: LocalStack
    kafka: str
    store: str
    source: str
    records: int
    manifest: Manifest
    entry: ChannelEntry
    model: Path

    def pipeline(self, what: str) -> tuple[str, Pipeline]:
        """A pipeline with an output of its own, as text and read."""
        text = PIPELINE.format(name=f"{what}-{uuid.uuid4().hex[:8]}", source=self.source)
        return text, parse_pipeline(text, where=what)


def main() -> None:
    """Measure in turns and print the comparisons."""
    arguments = parse_arguments(__doc__)
    records, rounds = (60_000, 1) if arguments.quick else (300_000, 3)
    rates: dict[str, list[float]] = {LIMIT: [], **{guarantee: [] for guarantee in Guarantee}}
    with running_bench(records) as bench:
        for turn in range(rounds):
            # who goes first changes each time
            for name in list(rates) if turn % 2 else reversed(rates):
                rates[name].append(plain_loop(bench) if name == LIMIT else flink_job(bench, Guarantee(name)))
                sys.stderr.write(f"round {turn + 1}: {name}: {rates[name][-1]:,.0f} records/s\n")
    report(
        [
            compare(
                f"Flink job, digits JSON, {guarantee}",
                "records/s",
                LIMIT,
                list(zip(rates[guarantee], rates[LIMIT], strict=True)),
            )
            for guarantee in Guarantee
        ],
        arguments,
    )


# --- what all need --------------------------------------------------------------------------------


@contextlib.contextmanager
def running_bench(records: int) -> Iterator[Bench]:
    """A stack of its own with a filled topic and a trained model."""
    with tempfile.TemporaryDirectory() as folder:
        credentials = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark-secret"}
        os.environ.update(credentials)
        stack = LocalStack(home=Path(folder) / "stack", environ={**os.environ, **credentials})
        try:
            addresses = stack.up()
            source = "bench.digits"
            fill(addresses.kafka, source, records)
            registry = Registry.open(addresses.store)
            data, path = train(), Path(folder) / "model.onnx"
            path.write_bytes(data)
            manifest = registry.publish("digits", data, read_facts(data))
            entry = registry.promote("digits", manifest.version)
            yield Bench(stack, addresses.kafka, addresses.store, source, records, manifest, entry, path)
        finally:
            stack.down(wipe=True)


def train() -> bytes:
    """StandardScaler and SGDClassifier on scikit-learn's digits, as ONNX."""
    from skl2onnx import to_onnx

    x, y = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(x, y)
    onnx_model = to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}, target_opset=18)
    return bytes(onnx_model.SerializeToString())


def fill(kafka: str, topic: str, records: int) -> None:
    """Write the input topic."""
    ensure_topics(kafka, {topic: 1})
    x, y = load_digits(return_X_y=True)
    values = [
        json.dumps({"ts": "2026-01-02 03:04:05.678", "x": row, "actual_y": label}).encode()
        for row, label in zip(x.astype(int).tolist(), y.tolist(), strict=True)
    ]
    producer = KafkaProducer(bootstrap_servers=kafka, linger_ms=20, batch_size=256 * 1024)
    for number in range(records):
        producer.send(topic, key=str(number).encode(), value=values[number % len(values)])
    producer.flush()
    producer.close()


def steady_rate(kafka: str, topic: str, records: int) -> float:
    """Records per second between the first and the last tenth of the output, by Kafka's timestamps."""
    times = np.asarray(timestamps(kafka, topic))
    assert len(times) == records, f"{len(times)} of {records} records came out"
    inner = np.sort(times)[int(records * EDGE) : int(records * (1 - EDGE))]
    return float(len(inner) / (inner[-1] - inner[0]) * 1000)


def timestamps(kafka: str, topic: str) -> list[int]:
    """When each committed record of `topic` was written, in milliseconds."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka, group_id=None, isolation_level="read_committed", consumer_timeout_ms=5000
    )
    with contextlib.closing(consumer):
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        return [message.timestamp for message in consumer]


# --- the contenders -------------------------------------------------------------------------------


def flink_job(bench: Bench, guarantee: Guarantee) -> float:
    """The real job, by the stock command; it is cancelled when all its output is committed."""
    text, pipeline = bench.pipeline("flink")
    scoring = pipeline.require_scoring()
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        arguments = ["--pipeline", file.name, "--store", bench.store, "--guarantee", guarantee]
        command, environ = bench.stack.flink_command("run", "-d", "-pym", "flink_scoring.job", *arguments)
        result = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, timeout=120
        )
    found = re.search(r"JobID (\w+)", result.stdout)
    assert found, result.stdout + result.stderr
    await_output(bench.kafka, scoring.topic, bench.records)
    job = f"{bench.stack.addresses().flink}/jobs/{found[1]}"
    httpx.patch(job, timeout=10)
    while httpx.get(job, timeout=10).json()["state"] != "CANCELED":
        time.sleep(0.2)
    return steady_rate(bench.kafka, scoring.topic, bench.records)


def await_output(kafka: str, topic: str, records: int) -> None:
    """Return when `records` records of `topic` are committed."""
    end = time.monotonic() + DEADLINE
    consumer = KafkaConsumer(bootstrap_servers=kafka, group_id=None, isolation_level="read_committed")
    with contextlib.closing(consumer):
        partition = TopicPartition(topic, 0)
        # a transaction's marker takes an offset too, so offsets only say that it may be enough
        while consumer.end_offsets([partition])[partition] < records:
            assert time.monotonic() < end, f"the job did not write {records} records in {DEADLINE:g} s"
            time.sleep(0.5)
    time.sleep(6)  # the checkpoint after the last record commits it


def plain_loop(bench: Bench) -> float:
    """Consume, decode, score and produce in this process, in batches of 1000, with kafka-python."""
    scorer, served, topic = _prepared(bench)
    consumer = KafkaConsumer(
        bootstrap_servers=bench.kafka, group_id=None, max_poll_records=BATCH, fetch_max_bytes=8 << 20
    )
    producer = KafkaProducer(bootstrap_servers=bench.kafka, linger_ms=5, acks="all")
    partition = TopicPartition(bench.source, 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    done = 0
    while done < bench.records:
        for messages in consumer.poll(timeout_ms=1000).values():
            batch = scorer.score([message.value for message in messages], served)
            for message, value in zip(messages, batch.scored, strict=True):
                producer.send(topic, key=message.key, value=value)
            done += len(messages)
    producer.flush()
    producer.close()
    consumer.close()
    return steady_rate(bench.kafka, topic, bench.records)


def _prepared(bench: Bench) -> tuple[Scorer, ServedModel, str]:
    _, pipeline = bench.pipeline("plain")
    topic = pipeline.require_scoring().topic
    ensure_topics(bench.kafka, {topic: 1})
    served = ServedModel(bench.manifest, bench.entry, OnnxSession(bench.model), utc_now())
    return Scorer(pipeline, largest_dead_value=1 << 20), served, topic


if __name__ == "__main__":
    main()
