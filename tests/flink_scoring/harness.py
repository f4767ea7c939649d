"""A scoring job on the local stack: submit it, feed it, and read back what is committed."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from kafka import KafkaConsumer, KafkaProducer

from deploy.stack.local import LocalStack
from model_runtime.facts import read_facts
from registry.catalogue import Registry
from registry.documents import ChannelEntry
from streams.kafka import ensure_topics
from streams.pipeline import Pipeline, parse_pipeline
from streams.scored import ScoredRecord, decode_scored

LARGEST = 8_000_000
READ_DEADLINE = 180.0
SILENCE = 30.0
"""A consumer that gets nothing for so long is replaced: kafka-python's can lose its place while it starts."""
SUBMIT_DEADLINE = 240.0

_JOB_ID = re.compile(r"JobID ([0-9a-f]{32})")


def wait_for(condition: Callable[[], Any], what: str, *, deadline: float = 150.0, pause: float = 0.1) -> Any:
    """What `condition` gives as soon as it is true."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {deadline:g} s in vain: {what}"
        time.sleep(pause)
    return found


def digit(identity: int, **fields: Any) -> bytes:
    """A record of the digits stream."""
    whole = {"ts": "2026-01-02 03:04:05", "x": [identity % 17] * 64, "actual_y": identity % 10}
    return json.dumps(whole | fields).encode()


@dataclass
class Output:
    """What both output topics hold, by the key of the record."""

    scored: dict[bytes, ScoredRecord] = field(default_factory=dict)
    dead: dict[bytes, Any] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)

    def add(self, message: Any, dead_letters: str) -> None:
        """Take up one message."""
        self.seen.append(message.key)
        if message.topic == dead_letters:
            self.dead[message.key] = message
        else:
            self.scored[message.key] = decode_scored(message.value)


@dataclass
class ScoringJob:
    """One pipeline on the stack, with topics and a registry of its own."""

    stack: LocalStack
    pipeline: Pipeline
    file: Path
    registry: Registry
    store: str
    job_id: str = ""

    @property
    def kafka(self) -> str:
        return self.stack.addresses().kafka

    # --- the job ------------------------------------------------------------------------------------

    def run(self, *arguments: str, flink: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`flink run` with this pipeline, as a person types it."""
        line = ["run", "-d", *flink, "-pym", "flink_scoring.job", "--pipeline", str(self.file)]
        command, environ = self.stack.flink_command(*line, *arguments)
        environ["FERRY_STORE"] = self.store
        return subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=SUBMIT_DEADLINE, check=False
        )

    def submit(self, *arguments: str) -> None:
        self.take_id(self.run(*arguments))

    def take_id(self, result: subprocess.CompletedProcess[str]) -> None:
        """The id of the job that was submitted."""
        found = _JOB_ID.search(result.stdout)
        assert found, result.stdout + result.stderr
        self.job_id = found[1]

    def state(self) -> str:
        return str(self._ask("")["state"])

    def plan(self) -> str:
        return json.dumps(self._ask("/plan"))

    def restarts(self) -> int:
        """How often the job was restored after a fault."""
        exceptions = self._ask("/exceptions").get("exceptionHistory", {})
        return len(exceptions.get("entries", []))

    def checkpoints(self) -> int:
        """How many checkpoints were completed."""
        return int(self._ask("/checkpoints")["counts"]["completed"])

    def restored_from(self) -> str:
        """Where the state lay that the job went on from last; empty where it began anew."""
        restored = wait_for(lambda: self._ask("/checkpoints"), "the checkpoints")["latest"]["restored"]
        return str(restored["external_path"]) if restored else ""

    def cancel(self) -> None:
        if not self.job_id:
            return
        httpx.patch(f"{self._rest}/jobs/{self.job_id}", timeout=10)
        wait_for(lambda: self.state() in {"CANCELED", "FAILED", "FINISHED"}, "the job to end")

    @property
    def _rest(self) -> str:
        return self.stack.addresses().flink

    def _ask(self, path: str) -> Any:
        return httpx.get(f"{self._rest}/jobs/{self.job_id}{path}", timeout=10).raise_for_status().json()

    # --- the model ----------------------------------------------------------------------------------

    def promote(self, data: bytes, *, allow_contract_change: bool = False) -> ChannelEntry:
        manifest = self.registry.publish(self.pipeline.model, data, read_facts(data))
        return self.registry.promote(
            self.pipeline.model, manifest.version, allow_contract_change=allow_contract_change
        )

    # --- the stream ---------------------------------------------------------------------------------

    def create_source(self, partitions: int = 1) -> None:
        roomy = {"max.message.bytes": str(LARGEST)}
        ensure_topics(self.kafka, {self.pipeline.source.topic: partitions}, roomy)

    def send(
        self, records: Mapping[bytes, bytes | None], headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        with self.producing() as producer:
            for key, value in records.items():
                producer.send(self.pipeline.source.topic, key=key, value=value, headers=headers)

    @contextlib.contextmanager
    def feeding(self, rate: float = 100.0) -> Iterator[list[bytes]]:
        """Sends good records until the block ends; gives the keys sent, which are all sent afterwards."""
        keys: list[bytes] = []
        stop = threading.Event()

        def feed() -> None:
            with self.producing() as producer:
                while not stop.wait(1 / rate):
                    number = len(keys)
                    key = f"good-{number}".encode()
                    producer.send(self.pipeline.source.topic, key=key, value=digit(number))
                    keys.append(key)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            yield keys
        finally:
            stop.set()
            thread.join(60)

    def read(
        self, until: Callable[[Output], Any], *, deadline: float = READ_DEADLINE, committed: bool = True
    ) -> Output:
        """Both output topics from their beginning, until a condition holds of them."""
        end = time.monotonic() + deadline
        while (output := self._read_once(until, end, committed=committed)) is None:
            pass
        return output

    def _read_once(self, until: Callable[[Output], Any], end: float, *, committed: bool) -> Output | None:
        """By one consumer; None where it gave nothing at all for a while."""
        scoring = self.pipeline.require_scoring()
        output, began = Output(), time.monotonic()
        consumer = KafkaConsumer(
            scoring.topic,
            scoring.dead_letters,
            bootstrap_servers=self.kafka,
            group_id=None,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if committed else "read_uncommitted",
            max_partition_fetch_bytes=2 * LARGEST,
        )
        with contextlib.closing(consumer):
            while not until(output):
                now = time.monotonic()
                assert now < end, f"in time there are {len(output.seen)} outputs"
                if not output.seen and now - began > SILENCE:
                    return None
                for messages in consumer.poll(timeout_ms=200).values():
                    for message in messages:
                        output.add(message, scoring.dead_letters)
        return output

    def read_all(self, count: int, *, deadline: float = READ_DEADLINE) -> Output:
        """All outputs of `count` inputs, and whatever comes within the next two checkpoints."""
        complete = self.read(lambda output: len(output.seen) >= count, deadline=deadline)
        settle = time.monotonic() + 2 * self.pipeline.require_scoring().checkpoint_seconds + 1
        later = self.read(lambda output: len(output.seen) > count or time.monotonic() > settle)
        return later if len(later.seen) > count else complete

    @contextlib.contextmanager
    def producing(self) -> Iterator[Any]:
        """A producer whose records are all sent when the block ends."""
        producer = KafkaProducer(
            bootstrap_servers=self.kafka, acks="all", max_request_size=LARGEST, enable_idempotence=True
        )
        try:
            yield producer
            producer.flush(timeout=60)
        finally:
            producer.close(timeout=10)


def make_job(stack: LocalStack, text: str, folder: Path) -> ScoringJob:
    """A job that is not submitted yet, for the pipeline that `text` describes."""
    pipeline = parse_pipeline(text, where="the test's pipeline", folder=folder)
    file = folder / f"{pipeline.name}.toml"
    file.write_text(text)
    bucket, _, query = stack.addresses().store.partition("?")
    store = f"{bucket}/{pipeline.name}?{query}"
    return ScoringJob(stack, pipeline, file, Registry.open(store), store)
