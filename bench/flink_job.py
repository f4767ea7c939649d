"""The Flink job beside its limit: a bare loop of confluent-kafka, orjson and onnxruntime in one process.

Both read the same filled topic of digits records (JSON, 64 whole numbers each), score them with the same
model and write the same fields; the loop checks nothing and follows no registry. The broker
is on the same machine. Rates are those of the steady state by the broker's clock: start-up is left out, and
so are the first two million records, during which the JVMs compile what they run.
Beside it: raw float32 records against JSON, and two subtasks against one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import onnxruntime
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.flink_digits import (
    EVENT_TIME,
    JSON_SOURCE,
    MODEL,
    Bench,
    fill,
    float32_values,
    forget_topic,
    json_values,
    output_topic,
    pipeline_text,
    running_bench,
    running_job,
    steady_rate,
)
from bench.measure import Comparison, compare, parse_arguments, report
from ferryline.flink_scoring.options import Guarantee

LOOP = "bare loop"
EXACTLY, AT_LEAST = Guarantee.EXACTLY_ONCE.value, Guarantee.AT_LEAST_ONCE.value
RAW, TWO = "float32", "parallelism 2"
BATCH = 1000
JSON_TOPIC, RAW_TOPIC, WIDE_TOPIC = "bench.digits", "bench.digits.raw", "bench.digits.wide"


def main() -> None:
    """Measure in turns and print the comparisons."""
    arguments = parse_arguments(__doc__)
    records, rounds = (400_000, 1) if arguments.quick else (4_000_000, 3)
    rates: dict[str, list[float]] = {}
    with running_bench() as bench:
        fill(bench.kafka, JSON_TOPIC, json_values(), records)
        fill(bench.kafka, WIDE_TOPIC, json_values(), records, partitions=2)
        fill(bench.kafka, RAW_TOPIC, float32_values(), records)
        turns = contenders(bench, records)
        for turn in range(rounds):
            # who goes first changes each time
            for name in list(turns) if turn % 2 else reversed(turns):
                rates.setdefault(name, []).append(turns[name]())
                sys.stderr.write(f"round {turn + 1}: {name}: {rates[name][-1]:,.0f} records/s\n")
    report(comparisons(rates), arguments)


def contenders(bench: Bench, records: int) -> dict[str, Callable[[], float]]:
    """Everyone who takes a turn; each gives records per second."""
    return {
        LOOP: lambda: bare_loop(bench, records),
        EXACTLY: lambda: flink_job(bench, JSON_TOPIC, records, EXACTLY),
        AT_LEAST: lambda: flink_job(bench, JSON_TOPIC, records, AT_LEAST),
        RAW: lambda: flink_job(bench, RAW_TOPIC, records, EXACTLY, source_extra='format = "float32"'),
        TWO: lambda: flink_job(bench, WIDE_TOPIC, records, EXACTLY, parallelism=2),
    }


def comparisons(rates: dict[str, list[float]]) -> list[Comparison]:
    """Each rate beside what it is held against."""
    lines = [
        ("Flink job, digits JSON, exactly-once", EXACTLY, LOOP),
        ("Flink job, digits JSON, at-least-once", AT_LEAST, LOOP),
        ("Flink job, raw float32, exactly-once", RAW, EXACTLY),
        ("Flink job, digits JSON, parallelism 2", TWO, EXACTLY),
    ]
    names = {LOOP: "confluent-kafka + orjson + onnxruntime", EXACTLY: "digits JSON, parallelism 1"}
    return [
        compare(title, "records/s", names[limit], list(zip(rates[ours], rates[limit], strict=True)))
        for title, ours, limit in lines
    ]


def flink_job(
    bench: Bench,
    source: str,
    records: int,
    guarantee: str,
    *,
    source_extra: str = JSON_SOURCE,
    parallelism: int = 1,
) -> float:
    """The real job on the local stack."""
    name, text = pipeline_text("flink", source, source_extra=source_extra)
    topic = output_topic(bench, name, partitions=parallelism)
    arguments = ["--guarantee", guarantee, "--parallelism", str(parallelism)]
    with running_job(bench, text, *arguments):
        rate = steady_rate(bench, topic, records, partitions=parallelism)
    forget_topic(bench, topic)
    return rate


def bare_loop(bench: Bench, records: int) -> float:
    """Consume, decode, run, encode and produce in this process, in batches of 1000."""
    topic = output_topic(bench, pipeline_text("loop", JSON_TOPIC)[0])
    common = {"bootstrap.servers": bench.kafka}
    consumer = Consumer({**common, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(JSON_TOPIC, 0, 0)])
    producer = Producer({**common, "enable.idempotence": True, "linger.ms": 5})
    session = _session(bench)
    done = 0
    while done < records:
        messages = consumer.consume(BATCH, 1.0)
        values = _scored(bench, session, [message.value() or b"" for message in messages])
        for message, value in zip(messages, values, strict=True):
            producer.produce(topic, key=message.key(), value=value)
        done += len(messages)
        while len(producer) > 50 * BATCH:
            producer.poll(0.01)
        producer.poll(0)
    producer.flush()
    consumer.close()
    rate = steady_rate(bench, topic, records)
    forget_topic(bench, topic)
    return rate


def _session(bench: Bench) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(bench.model, options)


def _scored(bench: Bench, session: onnxruntime.InferenceSession, values: list[bytes]) -> list[bytes]:
    if not values:
        return []
    documents = [orjson.loads(value) for value in values]
    rows = np.array([document["x"] for document in documents], dtype=np.float32)
    labels, scores = session.run(None, {session.get_inputs()[0].name: rows})
    at, digest = datetime.now(UTC), bench.manifest.blob.digest
    stamp = orjson.Fragment(orjson.dumps({"name": MODEL, "version": 1, "generation": 1, "digest": digest}))
    return [
        orjson.dumps(
            {
                "prediction": label,
                "scores": row,
                "event_time": document.get("ts", EVENT_TIME),
                "scored_at": at,
                "actual": document["actual_y"],
                "model": stamp,
            }
        )
        for document, label, row in zip(documents, labels.tolist(), scores.tolist(), strict=True)
    ]


if __name__ == "__main__":
    main()
