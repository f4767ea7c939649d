import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from deploy.feed.producer import FeedProducer
from deploy.stack.addresses import Addresses
from deploy.stack.local import LocalStack
from registry import Registry
from streams.pipeline import Pipeline, load_pipeline
from tests.stack_ports import private_ports
from trainer.progress import Progress
from trainer.state import StateFile

TRAINER = Path(sys.executable).with_name("ferry-trainer")
DEADLINE = 60.0


@pytest.fixture(scope="session")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A Kafka and a MinIO of our own: these tests kill them."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FERRY_KAFKA")}
    environ.pop("FERRY_STORE", None)
    stack = LocalStack(home=tmp_path_factory.mktemp("stack"), environ=environ)
    stack.up(["kafka", "minio"], ports=private_ports())
    yield stack
    stack.down(wipe=True)


@pytest.fixture(scope="session")
def addresses(own_stack: LocalStack) -> Addresses:
    return own_stack.addresses()


def wait_until(condition: Callable[[], Any], what: str, *, deadline: float = DEADLINE) -> Any:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen within {deadline:g} s")


@dataclass
class TrainerProcess:
    """A running `ferry-trainer run`, and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = self.log.read_bytes().splitlines()
        events = [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
        return [event for event in events if name in {None, event["event"]}]

    def wait_for(self, name: str, *, more_than: int = 0) -> dict[str, Any]:
        def seen() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                pytest.fail(f"ended with {self.process.returncode} before {name!r}:\n{self.text()}")
            found = self.events(name)
            return found[-1] if len(found) > more_than else None

        found: dict[str, Any] = wait_until(seen, f"{name!r}")
        return found

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, *, deadline: float = DEADLINE) -> int:
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end within {deadline:g} s:\n{self.text()}")

    def text(self) -> str:
        return self.log.read_text()


@dataclass
class Bench:
    """A topic, a pipeline file, a state folder and a registry of one test."""

    folder: Path
    addresses: Addresses
    topic: str
    store: str
    started: list[TrainerProcess] = field(default_factory=list)

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
            ("batch_records = 100", f"batch_records = {batch_records}"),
            ("every_records = 1000", f"every_records = {every_records}\nmin_seconds = 0.2"),
            ("every_seconds = 5.0", f"every_seconds = {every_seconds}"),
            ("handwritten_digit", self.topic),
        ):
            assert old in text
            text = text.replace(old, new)
        self.pipeline_file.write_text(text)

    def start(self, *options: str) -> TrainerProcess:
        log = self.folder / f"log-{len(self.started)}.jsonl"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [TRAINER, "run", self.pipeline_file, "--log-format", "json", *options],
                env=os.environ
                | self.addresses.environ()
                | {"FERRY_STORE": self.store, "FERRY_STATE": str(self.folder / "state")},
                stderr=file,
            )
        self.started.append(TrainerProcess(process, log))
        return self.started[-1]

    def run(self, *options: str) -> TrainerProcess:
        trainer = self.start(*options)
        trainer.ended()
        return trainer

    def send(self, values: list[bytes], *, partitions: int = 1) -> None:
        producer = FeedProducer(self.addresses.kafka, self.topic, partitions=partitions)
        for index, value in enumerate(values):
            producer.send(str(index).encode(), value)
        producer.close(30)
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
            trainer.process.wait(10)
