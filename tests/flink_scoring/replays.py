"""What a job wrote, aborted or not: every answer that a key ever got, and where its record lay."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ferryline.registry.documents import ChannelEntry
from ferryline.streams.scored import ScoredRecord
from tests.flink_scoring.harness import ScoringJob, digit
from tests.flink_scoring.reading import Output
from tests.support.waiting import DEADLINE

_SAVEPOINT = re.compile(r"Path: (\S+)")

Answers = Mapping[bytes, Sequence[ScoredRecord]]


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
    job: ScoringJob,
    rate: float = 100.0,
    *,
    name: str = "record",
    poison_every: int | None = None,
    partitions: Sequence[int] = (),
) -> Iterator[Sent]:
    """Sends records called `name` and a number until the block ends; all are there afterwards.

    Args:
        job: whose source topic they go to.
        rate: records a second.
        name: begins their keys.
        poison_every: one of so many cannot be scored.
        partitions: take turns; without any the key decides.
    """
    sent, stop = Sent(), threading.Event()
    turns = itertools.cycle(partitions or [None])
    futures: list[tuple[bytes, Any]] = []
    failures: list[BaseException] = []

    def feed() -> None:
        try:
            with job.producing() as producer:
                for key, value in _records(sent, stop, rate, name, poison_every):
                    futures.append((key, _send(producer, job, key, value, next(turns))))
            _note_places(sent, futures)
        except BaseException as error:  # noqa: BLE001 - told where the test waits
            failures.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join(DEADLINE)
    assert not failures, failures
    assert len(sent) == len(futures)


def send_to(job: ScoringJob, partition: int, count: int, *, name: str) -> Sent:
    """Send so many records called `name` and a number to one partition."""
    sent = Sent()
    with job.producing() as producer:
        keys = [f"{name}-{number}".encode() for number in range(count)]
        _note_places(sent, [(key, _send(producer, job, key, digit(1), partition)) for key in keys])
    return sent


def _send(producer: Any, job: ScoringJob, key: bytes, value: bytes, partition: int | None) -> Any:
    return producer.send(job.pipeline.source.topic, key=key, value=value, partition=partition)


def _note_places(sent: Sent, futures: Sequence[tuple[bytes, Any]]) -> None:
    for key, future in futures:
        found = future.get(timeout=DEADLINE)
        sent.places[key] = (found.partition, found.offset)


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
        stop.wait(0.05)


def every_answer(job: ScoringJob) -> Answers:
    """What was ever written for each key, in transactions that were aborted too."""
    return job.reader(committed=False).read_to_end().answers


def require_all_once(output: Output, sent: Sent, entries: Sequence[ChannelEntry]) -> None:
    """Each record came out once, in the topic where it belongs, by the whole version that it names.

    Args:
        output: of the job.
        sent: all that it was given.
        entries: those that may have scored; each version answers with its own number.
    """
    assert sorted(output.seen) == sorted(sent.places)
    assert set(output.dead) == sent.poisoned
    by_generation = {entry.generation: entry for entry in entries}
    for record in output.scored.values():
        entry = by_generation[record.model.generation]
        assert (record.model.name, record.model.version) == (entry.model, entry.version)
        assert record.model.digest == entry.blob_digest
        assert record.prediction == entry.version


def require_one_generation_per_record(answers: Answers, sent: Sent) -> int:
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
        if key in sent.places:
            partition, offset = sent.places[key]
            along[partition].append((offset, records[0].model.generation))
    for places in along.values():
        generations = [generation for _, generation in sorted(places)]
        assert generations == sorted(generations)
    return sum(len(records) > 1 for records in answers.values())


def wait_until_scored_by(job: ScoringJob, generation: int) -> None:
    """Until a generation or a newer one scored something, committed or not yet."""
    what = f"a record scored by generation {generation}"
    job.read(lambda output: output.newest >= generation, what, committed=False)


def wait_for_outputs(job: ScoringJob, count: int) -> None:
    """Until so many more records were scored than when it was asked, committed or not."""
    scored = len(job.reader(committed=False).read_to_end().seen)
    job.read(lambda output: len(output.seen) >= scored + count, f"{count} more outputs", committed=False)


def stop_with_savepoint(job: ScoringJob) -> str:
    """`flink stop`, as a person types it once each task runs; where the savepoint lies.

    A record scored by a new generation tells nothing of them: the tasks of a job whose job manager was killed
    score on for a while.
    """
    job.wait_until_running()
    command, environ = job.stack.flink_command("stop", job.job_id)
    result = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    found = _SAVEPOINT.search(result.stdout)
    assert found, result.stdout + result.stderr
    return found[1]
