"""Memory of a Python worker over many swaps: a job scores a steady stream while versions are promoted.

Each version is a file of its own, promoted as soon as the worker has answered with the one before. What is
read is the worker's proportional share of memory (PSS): after the first tenth of the swaps, when what is kept
of recent versions is full, and after the last. The goal is that it stays within 20 MB.
"""

from __future__ import annotations

import sys
import time
import uuid

import psutil
from confluent_kafka import Consumer

from bench.flink_digits import MODEL, Bench, pipeline_text, running_bench, running_job
from bench.flink_latency import reader, sending
from bench.measure import compare, parse_arguments, report
from bench.swap_models import digits_versions
from ferryline.flink_scoring.options import Guarantee
from ferryline.model_runtime.facts import read_facts
from ferryline.streams.kafka import ensure_topics
from ferryline.streams.scored import decode_scored

MIB = 2**20
GOAL_MIB = 20.0
RATE = 200.0
SWAP_DEADLINE = 60.0
START_DEADLINE = 120.0
WARM_PART = 10
WORKER = "pyflink.fn_execution.beam.beam_boot"


def main() -> None:
    """Swap, and print what memory did."""
    arguments = parse_arguments(__doc__)
    with running_bench() as bench:
        readings = memory_over(bench, 100 if arguments.quick else 1000)
    warm = readings[len(readings) // WARM_PART]
    sys.stderr.write(f"{len(readings)} swaps; MB after each tenth: {_tenths(readings)}\n")
    title = f"worker's memory, {len(readings)} swaps"
    report(
        [
            compare(title, "MB", "after a tenth of them", [(readings[-1], warm)]),
            compare(f"{title}: growth", "MB", "goal", [(readings[-1] - warm, GOAL_MIB)]),
        ],
        arguments,
    )


def memory_over(bench: Bench, swaps: int) -> list[float]:
    """MB that the worker has after each swap."""
    source = f"memory.{uuid.uuid4().hex[:8]}"
    ensure_topics(bench.kafka, {source: 1})
    name, text = pipeline_text("memory", source)
    guarantee = Guarantee.AT_LEAST_ONCE
    readings: list[float] = []
    with (
        running_job(bench, text, "--guarantee", guarantee),
        sending(bench, source, RATE),
        reader(bench, f"{name}.out", guarantee) as consumer,
    ):
        await_version(consumer, bench.manifest.version, START_DEADLINE)
        worker = find_worker(bench)
        for data in digits_versions(swaps):
            manifest = bench.registry.publish(MODEL, data, read_facts(data))
            # the first of them names its tensors otherwise than the model that every benchmark begins with
            bench.registry.promote(MODEL, manifest.version, allow_contract_change=not readings)
            await_version(consumer, manifest.version, SWAP_DEADLINE)
            readings.append(worker.memory_full_info().pss / MIB)
    return readings


def await_version(consumer: Consumer, version: int, deadline: float) -> None:
    """Return when a record was scored by `version`."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        messages = consumer.consume(1000, 0.1)
        if messages and decode_scored(messages[-1].value() or b"").model.version == version:
            return
    raise TimeoutError(f"version {version} scored nothing in {deadline:g} s")


def find_worker(bench: Bench) -> psutil.Process:
    """The job's Python worker, a descendant of this stack's task manager.

    Raises:
        RuntimeError: there is not exactly one.
    """
    pid = next(part.pid for part in bench.stack.status() if part.name == "taskmanager")
    every = psutil.Process(pid).children(recursive=True)
    found = [process for process in every if WORKER in process.cmdline()]
    if len(found) != 1:
        raise RuntimeError(f"{len(found)} Python workers run on the stack, one was expected")
    return found[0]


def _tenths(readings: list[float]) -> str:
    step = max(1, len(readings) // WARM_PART)
    return " ".join(f"{value:.0f}" for value in readings[step - 1 :: step])


if __name__ == "__main__":
    main()
