"""From `flink run` to the first record scored: this release against one without class archives, in turns.

Each contender has a stack of its own, which is up before the clock starts, with a promoted model and records
that wait in the topic. With `--peer FOLDER` the other one is the release in that checkout, whose environment
`make install` made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from confluent_kafka import Consumer, TopicPartition

from bench.flink_digits import MODEL, fill, json_values, pipeline_text, train
from bench.measure import alternate, compare, parse_arguments, report
from ferryline.deploy.stack.home import cache_folder
from ferryline.streams.kafka import ensure_topics

JOB = "ferryline.flink_scoring.job"
RECORDS = 100
DEADLINE = 300.0
SETTLE = 3.0
GOAL = 0.6


@dataclass(frozen=True)
class Contender:
    """A release with a running stack.

    Attributes:
        programs: the folder of its commands.
        environ: the variables that they need for this stack.
        home: the stack's folder.
        job: the module of its scoring job.
    """

    programs: Path
    environ: dict[str, str]
    home: Path
    job: str = JOB

    def call(self, name: str, *arguments: str) -> str:
        """Run a command to its end; returns its standard output."""
        command = [str(self.programs / name), *arguments]
        # away from this checkout, whose packages `python -m` in the job's client would take for its own
        ended = subprocess.run(
            command, env=self.environ, cwd=self.home, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{command}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def seconds_to_first_record(self) -> float:
        """Submit a job on waiting records, and return how long the first one took."""
        kafka, source = self.environ["FERRY_KAFKA"], f"start.{uuid.uuid4().hex[:8]}"
        name, text = pipeline_text("start", source)
        fill(kafka, source, json_values(), RECORDS)
        ensure_topics(kafka, {f"{name}.out": 1})
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            time.sleep(SETTLE)  # the workers of the job before are still going down
            began = time.monotonic()
            run = ["flink", "run", "-d", "-pym", self.job, "--pipeline", file.name]
            told = self.call("ferry-stack", *run, "--guarantee", "at-least-once")
        _read_one(kafka, f"{name}.out")
        seconds = time.monotonic() - began
        found = re.search(r"JobID (\w+)", told)
        assert found, told
        self._cancel(found[1])
        return seconds

    def _cancel(self, job: str) -> None:
        url = f"{self.environ['FERRY_FLINK']}/jobs/{job}"
        httpx.patch(url, timeout=10)
        while httpx.get(url, timeout=10).json()["state"] not in {"CANCELED", "FAILED"}:
            time.sleep(0.2)


def main() -> None:
    """Measure in turns and print the comparison."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--peer", type=Path, help="the checkout of another release")
    parser.add_argument("--peer-job", default=JOB, help="the module of its job, where that is another")
    peer, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    arguments = parse_arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stacks:
        root, bare = Path(folder), {} if peer.peer else _cache_without_archives(Path(folder) / "cache")
        programs = peer.peer.absolute() / ".venv" / "bin" if peer.peer else Path(sys.executable).parent
        ours = stacks.enter_context(_running(Path(sys.executable).parent, root / "ours", {}, JOB))
        limit = stacks.enter_context(_running(programs, root / "limit", bare, peer.peer_job))
        pairs = alternate(
            ours.seconds_to_first_record, limit.seconds_to_first_record, rounds=3 if arguments.quick else 7
        )
    name = "the other release" if peer.peer else "without archives"
    report([compare(f"flink run to the first record scored, at most {GOAL}", "s", name, pairs)], arguments)


@contextlib.contextmanager
def _running(programs: Path, home: Path, more: dict[str, str], job: str) -> Iterator[Contender]:
    environ = {**os.environ, "FERRY_STACK_HOME": str(home), **more}
    home.mkdir()
    contender = Contender(programs, environ, home, job)
    try:
        contender.call("ferry-stack", "up")
        lines = re.findall(r"export (\w+)=(.*)", contender.call("ferry-stack", "env"))
        exported = {key: value.strip("'") for key, value in lines}
        ready = Contender(programs, environ | exported, home, job)
        model = home / "model.onnx"
        model.write_bytes(train())
        ready.call("ferry", "publish", MODEL, str(model), "--promote")
        yield ready
    finally:
        contender.call("ferry-stack", "down", "--wipe")


def _cache_without_archives(folder: Path) -> dict[str, str]:
    """The variables of a cache that holds the same by links, but for class archives of Kafka and Flink."""
    kept = cache_folder(os.environ) / "stack"
    shutil.copytree(kept, folder / "stack", copy_function=os.link, ignore=shutil.ignore_patterns("classes-*"))
    return {"FERRY_CACHE": str(folder)}


def _read_one(kafka: str, topic: str) -> None:
    settings = {"bootstrap.servers": kafka, "group.id": topic, "isolation.level": "read_uncommitted"}
    consumer = Consumer({**settings, "enable.auto.commit": False, "fetch.wait.max.ms": 10})
    consumer.assign([TopicPartition(topic, 0, 0)])
    end = time.monotonic() + DEADLINE
    try:
        while not consumer.consume(1, 0.05):
            if time.monotonic() > end:
                raise RuntimeError(f"nothing was scored within {DEADLINE:g} s")
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
