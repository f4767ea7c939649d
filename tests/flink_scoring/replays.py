"""What a job wrote, aborted or not: every answer that a key ever got, and where its record lay."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from streams.scored import ScoredRecord, decode_scored
from tests.flink_scoring.harness import Output, ScoringJob, digit, wait_for

_SAVEPOINT = re.compile(r"Path: (\S+)")


@dataclass
class Sent:
    """Records that were sent, by key; `places` is their partition and offset."""

    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    poisoned: set[bytes] = field(default_factory=set)

    def add(self, others: Sent) -> None:
        """Take up others."""
        self.places.update(others.places)
        self.poisoned.update(others.poisoned)

    def __len__(self) -> int:
        return len(self.places)


@contextlib.contextmanager
def feeding(
    job: ScoringJob, rate: float = 200.0, *, name: str = "record", poison_every: int | None = None
) -> Iterator[Sent]:
    """Sends records called `name` and a number until the block ends; all are there afterwards."""
    sent, stop = Sent(), threading.Event()
    futures: list[tuple[bytes, Any]] = []
    failures: list[BaseException] = []

    def feed() -> None:
        try:
            with job.producing() as producer:
                for key, value in _records(sent, stop, rate, name, poison_every):
                    futures.append((key, producer.send(job.pipeline.source.topic, key=key, value=value)))
            for key, future in futures:
                found = future.get(timeout=60)
                sent.places[key] = (found.partition, found.offset)
        except BaseException as error:  # noqa: BLE001 - told where the test waits
            failures.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join(120)
    assert not failures, failures
    assert len(sent) == len(futures)


def _records(
    sent: Sent, stop: threading.Event, rate: float, name: str, poison_every: int | None
) -> Iterator[tuple[bytes, bytes]]:
    made, begin = 0, time.monotonic()
    while not stop.is_set():
        due = int((time.monotonic() - begin) * rate)
        for number in range(made, due):
            key = f"{name}-{number}".encode()
            if poison_every and number % poison_every == poison_every - 1:
                sent.poisoned.add(key)
                yield key, b'{"x": "poison"}'
            else:
                yield key, digit(number)
        made = due
        stop.wait(0.02)


def every_answer(job: ScoringJob) -> dict[bytes, list[ScoredRecord]]:
    """What was ever written for each key, in transactions that were aborted too."""
    consumer = KafkaConsumer(bootstrap_servers=job.kafka, group_id=None, isolation_level="read_uncommitted")
    topic = job.pipeline.require_scoring().topic
    with contextlib.closing(consumer):
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        answers: dict[bytes, list[ScoredRecord]] = defaultdict(list)
        end = time.monotonic() + 60
        while any(consumer.position(place) < ends[place] for place in partitions):
            assert time.monotonic() < end, "the topic cannot be read to its end"
            for messages in consumer.poll(timeout_ms=200).values():
                for message in messages:
                    answers[message.key].append(decode_scored(message.value))
    return answers


def require_one_generation_per_record(answers: dict[bytes, list[ScoredRecord]], sent: Sent) -> int:
    """Every record has one generation however often it was scored; how many were scored more than once.

    And along each partition generations only rise.
    """
    torn = {
        key: [record.model.generation for record in records]
        for key, records in answers.items()
        if len({(record.model, record.prediction) for record in records}) > 1
    }
    assert not torn, f"{len(torn)} records were scored by several generations: {dict(list(torn.items())[:5])}"
    along: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for key, records in answers.items():
        partition, offset = sent.places[key]
        along[partition].append((offset, records[0].model.generation))
    for places in along.values():
        generations = [generation for _, generation in sorted(places)]
        assert generations == sorted(generations)
    return sum(len(records) > 1 for records in answers.values())


def wait_until_scored_by(job: ScoringJob, generation: int, *, deadline: float = 240.0) -> None:
    """Until a generation scored something, committed or not yet."""

    def is_there(output: Output) -> bool:
        newest = next(reversed(output.scored.values()), None)
        return newest is not None and newest.model.generation >= generation

    job.read(is_there, committed=False, deadline=deadline)


def wait_for_outputs_behind_a_checkpoint(job: ScoringJob, count: int) -> None:
    """Until a checkpoint was just completed, and `count` records were scored since."""
    before = job.checkpoints()
    wait_for(lambda: job.checkpoints() > before, "the next checkpoint")
    scored = sum(map(len, every_answer(job).values()))
    wait_for(lambda: sum(map(len, every_answer(job).values())) >= scored + count, "outputs behind it")


def stop_with_savepoint(job: ScoringJob) -> str:
    """`flink stop`, as a person types it; where the savepoint lies."""
    command, environ = job.stack.flink_command("stop", job.job_id)
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    found = _SAVEPOINT.search(result.stdout)
    assert found, result.stdout + result.stderr
    return found[1]
