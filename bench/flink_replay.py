"""What it costs that replayed records are scored by the version of before: the Flink job with and without.

The same filled topic of digits records, the same model, parallelism 1, exactly-once. Two figures: the rate of
the steady state by the broker's clock, and what the task manager and its Python worker used of the processor
for a record, start-up included, which a busy machine disturbs less.
"""

from __future__ import annotations

import contextlib
import sys

import psutil

from bench.flink_digits import (
    Bench,
    fill,
    json_values,
    output_topic,
    pipeline_text,
    running_bench,
    running_job,
    steady_rate,
)
from bench.measure import compare, parse_arguments, report
from ferryline.streams.pipeline import Replay

TOPIC = "bench.replay"


def main() -> None:
    """Measure in turns and print the comparisons."""
    arguments = parse_arguments(__doc__)
    records, rounds = (400_000, 2) if arguments.quick else (1_500_000, 4)
    measured: dict[Replay, list[tuple[float, float]]] = {replay: [] for replay in Replay}
    with running_bench() as bench:
        fill(bench.kafka, TOPIC, json_values(), records)
        for turn in range(rounds):
            for replay in list(Replay) if turn % 2 else reversed(Replay):
                rate, cost = job(bench, records, replay)
                measured[replay].append((rate, 1 / cost))
                sys.stderr.write(
                    f"round {turn + 1}: {replay}: {rate:,.0f} records/s, {cost * 1e6:.1f} us each\n"
                )
    what = 'Flink job, digits JSON, replay = "same"', 'replay = "newest"'
    pairs = list(zip(measured[Replay.SAME], measured[Replay.NEWEST], strict=True))
    rates = compare(what[0], "records/s", what[1], [(same[0], newest[0]) for same, newest in pairs])
    costs = compare(what[0], "records/cpu s", what[1], [(same[1], newest[1]) for same, newest in pairs])
    report([rates, costs], arguments)


def job(bench: Bench, records: int, replay: Replay) -> tuple[float, float]:
    """The real job on the local stack: its records per second, and processor seconds per record."""
    name, text = pipeline_text("replay", TOPIC, scoring_extra=f'replay = "{replay}"')
    topic = output_topic(bench, name)
    before = processor_seconds(bench)
    with running_job(bench, text, "--start", "earliest"):
        rate = steady_rate(bench, topic, records)
        return rate, (processor_seconds(bench) - before) / records


def processor_seconds(bench: Bench) -> float:
    """What the task manager and the workers that it has now have used of the processor."""
    (pid,) = (part.pid for part in bench.stack.status() if part.name == "taskmanager")
    total = 0.0
    manager = psutil.Process(pid)
    for process in (manager, *manager.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system
    return total


if __name__ == "__main__":
    main()
