"""How long a record takes through the Flink job: written to the source topic, scored, read from the output.

1,000 digits records a second with `latency_ms = 50`. At-least-once is read uncommitted, as soon as it is
written. Exactly-once is read committed, so it waits for the checkpoint, here once a second. Each record's key
is the moment it was sent; one process sends and reads, so there is one clock. The first seconds do not count.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.flink_digits import Bench, json_values, output_topic, pipeline_text, running_bench, running_job
from bench.measure import Comparison, compare, parse_arguments, report
from ferryline.flink_scoring.options import Guarantee
from ferryline.streams.kafka import ensure_topics

RATE = 1000
LATENCY_MS = 50
CHECKPOINT_SECONDS = 1.0
WARM_SECONDS = 15.0
# an answer that takes longer than this is none
LONGEST = 30.0

# milliseconds at the median and at the 99th percentile
GOAL = (60.0, 150.0)
CHECKPOINT = (CHECKPOINT_SECONDS * 1000, CHECKPOINT_SECONDS * 2000)
PERCENTILES = (50, 99)


def main() -> None:
    """Measure in turns and print the comparisons."""
    arguments = parse_arguments(__doc__)
    seconds, rounds = (15.0, 1) if arguments.quick else (30.0, 3)
    found: dict[Guarantee, list[tuple[float, float]]] = {guarantee: [] for guarantee in Guarantee}
    with running_bench() as bench:
        for turn in range(rounds):
            for guarantee in list(Guarantee) if turn % 2 else reversed(Guarantee):
                waits = latencies(bench, guarantee, seconds)
                p50, p99 = np.percentile(waits, PERCENTILES)
                found[guarantee].append((float(p50), float(p99)))
                sys.stderr.write(f"round {turn + 1}: {guarantee}: p50 {p50:.0f} ms, p99 {p99:.0f} ms\n")
    limits = {Guarantee.AT_LEAST_ONCE: ("goal", GOAL), Guarantee.EXACTLY_ONCE: ("checkpoint", CHECKPOINT)}
    report(
        [
            line
            for guarantee, pairs in found.items()
            for line in comparisons(guarantee, pairs, *limits[guarantee])
        ],
        arguments,
    )


def comparisons(
    guarantee: Guarantee, found: Sequence[tuple[float, float]], name: str, limits: tuple[float, float]
) -> list[Comparison]:
    """One line for each percentile; below 1 is better than the limit."""
    return [
        compare(
            f"latency p{percentile}, {RATE} records/s, {guarantee}",
            "ms",
            f"{name} {limit:g}",
            [(figures[place], limit) for figures in found],
        )
        for place, (percentile, limit) in enumerate(zip(PERCENTILES, limits, strict=True))
    ]


def latencies(bench: Bench, guarantee: Guarantee, seconds: float) -> list[float]:
    """Milliseconds from sending to reading, of every record sent in the last `seconds` of a run."""
    source = f"latency.{uuid.uuid4().hex[:8]}"
    ensure_topics(bench.kafka, {source: 1})
    extra = f"latency_ms = {LATENCY_MS}\ncheckpoint_seconds = {CHECKPOINT_SECONDS}"
    name, text = pipeline_text("latency", source, scoring_extra=extra)
    topic = output_topic(bench, name)
    with running_job(bench, text, "--guarantee", guarantee), reader(bench, topic, guarantee) as consumer:
        with sending(bench, source, RATE) as sent:
            _read_until(consumer, WARM_SECONDS)
            sent_before = len(sent)
            waits = _read_until(consumer, seconds)
        waits += _read_until(consumer, LONGEST, enough=len(sent) - sent_before - len(waits))
    return waits


@contextlib.contextmanager
def sending(bench: Bench, topic: str, rate: float) -> Iterator[list[int]]:
    """Sends at a constant rate until the block ends; gives the times sent, in nanoseconds."""
    stop, sent, values = threading.Event(), list[int](), json_values()
    producer = Producer({"bootstrap.servers": bench.kafka, "linger.ms": 0})

    def send() -> None:
        begin = time.monotonic()
        while not stop.is_set():
            due = int((time.monotonic() - begin) * rate)
            while len(sent) < due:
                sent.append(time.time_ns())
                producer.produce(topic, key=str(sent[-1]).encode(), value=values[len(sent) % len(values)])
            producer.poll(0)
            time.sleep(1 / rate)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
        producer.flush()


@contextlib.contextmanager
def reader(bench: Bench, topic: str, guarantee: Guarantee) -> Iterator[Consumer]:
    """The output from its beginning: committed records only, where that is what the job gives."""
    isolation = "read_committed" if guarantee is Guarantee.EXACTLY_ONCE else "read_uncommitted"
    settings = {"bootstrap.servers": bench.kafka, "group.id": topic, "isolation.level": isolation}
    consumer = Consumer({**settings, "enable.auto.commit": False, "fetch.wait.max.ms": 10})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        yield consumer
    finally:
        consumer.close()


def _read_until(consumer: Consumer, seconds: float, *, enough: int | None = None) -> list[float]:
    """Milliseconds that each record read took, for so many seconds or until there are enough."""
    waits: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and (enough is None or len(waits) < enough):
        messages = consumer.consume(1000, 0.005)
        now = time.time_ns()
        waits += [(now - int(message.key() or 0)) / 1e6 for message in messages]
    return waits


if __name__ == "__main__":
    main()
