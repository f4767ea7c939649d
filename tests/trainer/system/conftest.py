"""A pipeline of its own for each test, and `ferry-trainer` run on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from ferryline.deploy.feed.producer import FeedProducer
from ferryline.deploy.stack.addresses import Addresses
from ferryline.registry import Registry
from ferryline.streams.pipeline import Pipeline, load_pipeline
from ferryline.trainer.cli import main
from ferryline.trainer.progress import Progress
from ferryline.trainer.state import StateFile
from tests.support.waiting import DEADLINE, wait_for

TRAINER = Path(sys.executable).with_name("ferry-trainer")


@pytest.fixture
def addresses(kafka: Addresses) -> Addresses:
    return kafka


@dataclass
class Log:
    """What a `ferry-trainer run` wrote to standard error."""

    file: Path

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = self.file.read_bytes().splitlines()
        events = [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
        return [event for event in events if name in {None, event["event"]}]

    def text(self) -> str:
        return self.file.read_text()


@dataclass
class TrainerProcess(Log):
    """A running `ferry-trainer run`, and its log."""

    process: subprocess.Popen[bytes]

    def wait_for(self, name: str, *, more_than: int = 0) -> dict[str, Any]:
        """Returns the newest event of a name, once there are more than so many."""

        def seen() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                pytest.fail(f"ended with {self.process.returncode} before {name!r}:\n{self.text()}")
            found = self.events(name)
            return found[-1] if len(found) > more_than else None

        found = wait_for(seen, f"{name!r}")
        assert found is not None
        return found

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; returns the exit status."""
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end:\n{self.text()}")


@dataclass
class Finished(Log):
    """A `ferry-trainer run` that has ended."""

    status: int


@dataclass
class Bench:
    """A topic, a pipeline file, a state folder and a registry of one test."""

    folder: Path
    addresses: Addresses
    topic: str
    store: str
    started: list[TrainerProcess] = field(default_factory=list)
    _logs: int = 0

    @property
    def pipeline_file(self) -> Path:
        return self.folder / "pipeline.toml"

    @property
    def pipeline(self) -> Pipeline:
        return load_pipeline(self.pipeline_file)

    @property
    def registry(self) -> Registry:
        return Registry.open(self.store)

    def write_pipeline(
        self, *, batch_records: int = 20, every_records: int = 500, every_seconds: float = 2.0
    ) -> None:
        text = Path("deploy/pipelines/digits.toml").read_text()
        for old, new in (
            ('name = "digits"', f'name = "{self.topic}"'),  # of its state file and its consumer group too
            ("batch_records = 100", f"batch_records = {batch_records}"),
            ("every_records = 1000", f"every_records = {every_records}\nmin_seconds = 0.2"),
            ("every_seconds = 5.0", f"every_seconds = {every_seconds}"),
            ("handwritten_digit", self.topic),
        ):
            assert old in text
            text = text.replace(old, new)
        self.pipeline_file.write_text(text)

    def start(self, *options: str) -> TrainerProcess:
        """Start a trainer as a process of its own."""
        log = self._new_log()
        with log.open("wb") as file:
            process = subprocess.Popen(
                [TRAINER, *self._arguments(options)], env=os.environ | self._environ(), stderr=file
            )
        self.started.append(TrainerProcess(log, process))
        return self.started[-1]

    def run(self, *options: str) -> Finished:
        """Run a trainer to its end, in this process: an interpreter of its own takes seconds to start."""
        log = self._new_log()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.MonkeyPatch.context() as patch, log.open("w") as file:
            for name, value in self._environ().items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["ferry-trainer", *self._arguments(options)])
            patch.setattr(sys, "stderr", file)
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return Finished(log, int(str(ended.value.code or 0)))

    def _arguments(self, options: Sequence[str]) -> list[str]:
        return ["run", str(self.pipeline_file), "--log-format", "json", *options]

    def _environ(self) -> dict[str, str]:
        return self.addresses.environ() | {
            "FERRY_STORE": self.store,
            "FERRY_STATE": str(self.folder / "state"),
        }

    def _new_log(self) -> Path:
        self._logs += 1
        return self.folder / f"log-{self._logs}.jsonl"

    def send(self, values: list[bytes], *, partitions: int = 1) -> None:
        producer = FeedProducer(self.addresses.kafka, self.topic, partitions=partitions)
        for index, value in enumerate(values):
            producer.send(str(index).encode(), value)
        producer.close(DEADLINE)
        assert producer.acknowledged == len(values)

    def state(self) -> tuple[Progress, dict[str, Any]]:
        found = StateFile(self.folder / "state" / "trainer", self.pipeline).load()
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path, addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name, value in addresses.environ().items():
        monkeypatch.setenv(name, value)
    topic = f"t{uuid.uuid4().hex}"
    bench = Bench(tmp_path, addresses, topic, (tmp_path / "store").as_uri())
    bench.write_pipeline()
    yield bench
    for trainer in bench.started:
        if trainer.process.poll() is None:
            trainer.send(signal.SIGKILL)
            trainer.process.wait(DEADLINE)
