"""A scoring job on the local stack: submit it, feed it, and read back what is committed."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from kafka import KafkaProducer

from ferryline.deploy.stack.local import LocalStack
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ChannelEntry, ServedModelReport
from ferryline.streams.kafka import admin_client, ensure_topics
from ferryline.streams.pipeline import Pipeline, parse_pipeline
from tests.flink_scoring.reading import LARGEST, Output, OutputReader
from tests.support.waiting import DEADLINE, wait_for

_JOB_ID = re.compile(r"JobID ([0-9a-f]{32})")
_ENDED = {"CANCELED", "FAILED", "FINISHED"}


def digit(identity: int, **fields: Any) -> bytes:
    """A record of the digits stream."""
    whole = {"ts": "2026-01-02 03:04:05", "x": [identity % 17] * 64, "actual_y": identity % 10}
    return json.dumps(whole | fields).encode()


@dataclass
class ScoringJob:
    """One pipeline on the stack, with topics and a model of its own.

    Attributes:
        rest: Flink's REST interface, where it is not that of the stack.
        job_id: of the job that runs it, maybe with other pipelines; empty before it is submitted.
    """

    stack: LocalStack
    pipeline: Pipeline
    file: Path
    registry: Registry
    store: str
    rest: str = ""
    job_id: str = ""
    _readers: dict[bool, OutputReader] = field(default_factory=dict)

    @property
    def kafka(self) -> str:
        return self.stack.addresses().kafka

    # --- the job ------------------------------------------------------------------------------------

    def run(self, *arguments: str, flink: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """`flink run` with this pipeline, as a person types it."""
        line = ["run", "-d", *flink, "-pym", "ferryline.flink_scoring.job", "--pipeline", str(self.file)]
        command, environ = self.stack.flink_command(*line, *arguments)
        environ["FERRY_STORE"] = self.store
        return subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False
        )

    def submit(self, *arguments: str, flink: Sequence[str] = ()) -> None:
        self.take_id(self.run(*arguments, flink=flink))

    def take_id(self, result: subprocess.CompletedProcess[str]) -> None:
        """The id of the job that was submitted."""
        found = _JOB_ID.search(result.stdout)
        assert found, result.stdout + result.stderr
        self.job_id = found[1]

    def state(self) -> str:
        return str(self.ask("")["state"])

    def wait_until_running(self) -> None:
        """Return when each task of this job runs: the job itself is called running as soon as it is begun."""

        def runs() -> bool:
            vertices = self.ask("")["vertices"]
            return bool(vertices) and all(
                vertex["tasks"]["RUNNING"] == vertex["parallelism"] for vertex in vertices
            )

        wait_for(runs, "all tasks to run", pause=0.1)

    def restarts(self) -> int:
        """How often the job was restored after a fault."""
        return len(self._exceptions())

    def _exceptions(self) -> list[dict[str, Any]]:
        history: dict[str, Any] = self.ask("/exceptions").get("exceptionHistory", {})
        return list(history.get("entries", []))

    def diagnosis(self) -> str:
        """What Flink knows that may tell why something did not happen."""
        checkpoints = self.ask("/checkpoints")
        failed = (checkpoints["latest"] or {}).get("failed")
        causes = [entry.get("stacktrace", "")[:1000] for entry in self._exceptions()[:2]]
        return f"{self.state()}, {checkpoints['counts']}, last failed {failed}, exceptions {causes}"

    def named(self, kind: str) -> tuple[str, str]:
        """What a table or function of this pipeline is called in a job of its own, and in one of several."""
        return kind, f"{kind}_{re.sub(r'[^a-zA-Z0-9_]', '_', self.pipeline.name)}"

    def calls(self, function: str) -> int:
        """How many places of the plan call a function of this pipeline."""
        plan = json.dumps(self.ask("/plan"))
        return sum(plan.count(f"{name}(") for name in self.named(function))

    def restored_from(self) -> str:
        """Where the state lay that the job went on from last; empty where it began anew."""
        restored = wait_for(lambda: self.ask("/checkpoints"), "the checkpoints")["latest"]["restored"]
        return str(restored["external_path"]) if restored else ""

    def cancel(self) -> None:
        """End the job as an operator does, if it was submitted."""
        if self.job_id:
            httpx.patch(f"{self._rest}/jobs/{self.job_id}", timeout=DEADLINE)
            wait_for(lambda: self.state() in _ENDED, "the job to end", pause=0.1)

    def end(self) -> None:
        """Cancel it and let go of its topics."""
        try:
            self.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of its topics."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def ask(self, path: str, **query: str) -> Any:
        """What Flink's REST interface says of the job."""
        answer = httpx.get(f"{self._rest}/jobs/{self.job_id}{path}", params=query, timeout=DEADLINE)
        return answer.raise_for_status().json()

    @property
    def _rest(self) -> str:
        return self.rest or self.stack.addresses().flink

    # --- checkpoints --------------------------------------------------------------------------------

    def trigger_checkpoint(self) -> str:
        """Begin a checkpoint, once there is a task for each part of it; the name to ask its outcome by."""
        self.wait_until_running()
        path = f"{self._rest}/jobs/{self.job_id}/checkpoints"
        answer = httpx.post(path, json={"checkpointType": "CONFIGURED"}, timeout=DEADLINE)
        return str(answer.raise_for_status().json()["request-id"])

    def checkpoint_outcome(self, name: str) -> str:
        """`completed` or `failed`; nothing while it is under way."""
        found = self.ask(f"/checkpoints/{name}")
        if found["status"]["id"] != "COMPLETED":
            return ""
        return "failed" if found["operation"].get("failureCause") else "completed"

    def complete_checkpoint(self) -> None:
        """Return when a checkpoint is complete that began after this call."""

        def is_complete() -> bool:
            try:
                name = self.trigger_checkpoint()
                return wait_for(lambda: self.checkpoint_outcome(name), "a checkpoint to end") == "completed"
            except httpx.HTTPError:  # while the job is restored there is none
                return False

        wait_for(is_complete, "a whole checkpoint", pause=0.2)

    # --- the model ----------------------------------------------------------------------------------

    def publish(self, data: bytes) -> int:
        return self.registry.publish(self.pipeline.model, data, read_facts(data)).version

    def promote(self, data: bytes, *, allow_contract_change: bool = False) -> ChannelEntry:
        return self.registry.promote(
            self.pipeline.model, self.publish(data), allow_contract_change=allow_contract_change
        )

    def reports(self) -> list[ServedModelReport]:
        """What the job's workers say of this pipeline's model."""
        every = (
            each for beat in self.registry.consumers.all() if beat.role == "flink" for each in beat.models
        )
        return [report for report in every if report.model == self.pipeline.model]

    def refuses(self, entry: ChannelEntry, gate: str | None = None) -> bool:
        """Whether a worker refused a generation, at a gate."""
        return any(
            report.refused_generation == entry.generation and gate in {None, report.refused_gate}
            for report in self.reports()
        )

    def wait_until_serving(self, version: int, *, channel: str = "production", workers: int = 1) -> None:
        """Return when each worker says that this version serves: records sent from now on get it."""

        def serves() -> bool:
            reports = [report for report in self.reports() if report.channel == channel]
            return [report.version for report in reports] == [version] * workers

        wait_for(serves, f"version {version} to serve", pause=0.1)

    # --- the stream ---------------------------------------------------------------------------------

    def create_source(self, partitions: int = 1) -> None:
        roomy = {"max.message.bytes": str(LARGEST)}
        ensure_topics(self.kafka, {self.pipeline.source.topic: partitions}, roomy)

    def add_partitions(self, count: int) -> None:
        """Give the source topic so many partitions in all."""
        with admin_client(self.kafka) as client:
            client.create_partitions({self.pipeline.source.topic: count})

    def send(
        self,
        records: Mapping[bytes, bytes | None],
        headers: list[tuple[str, bytes]] | None = None,
        *,
        timestamp_ms: int | None = None,
    ) -> None:
        topic = self.pipeline.source.topic
        with self.producing() as producer:
            for key, value in records.items():
                producer.send(topic, key=key, value=value, headers=headers, timestamp_ms=timestamp_ms)

    @contextlib.contextmanager
    def producing(self) -> Iterator[Any]:
        """A producer whose records are all sent when the block ends."""
        producer = KafkaProducer(
            bootstrap_servers=self.kafka, acks="all", max_request_size=LARGEST, enable_idempotence=True
        )
        try:
            yield producer
            producer.flush(timeout=DEADLINE)
        finally:
            producer.close(timeout=10)

    def reader(self, *, committed: bool = True) -> OutputReader:
        """The reader that goes on from where the last reading ended."""
        if committed not in self._readers:
            self._readers[committed] = OutputReader(self.kafka, self.pipeline, committed=committed)
        return self._readers[committed]

    def read(self, until: Callable[[Output], Any], what: str = "", *, committed: bool = True) -> Output:
        """Both output topics from their beginning, until a condition holds of them."""
        reader = self.reader(committed=committed)
        if not until(reader.output):
            wait_for(lambda: until(reader.poll()), what or "outputs", pause=0.05)
        return reader.output

    def read_all(self, count: int, *, ask_for_checkpoints: bool = False) -> Output:
        """All that the job makes of `count` inputs: what it doubled would have been committed, too.

        Args:
            count: of the inputs.
            ask_for_checkpoints: because the job's own are far between.
        """
        reader = self.reader()
        if ask_for_checkpoints:
            self._ask_until_written(count)
        self.read(lambda output: len(output.seen) >= count, f"{count} outputs")
        self.complete_checkpoint()
        written = self.reader(committed=False)
        wait_for(lambda: reader.ends() == written.ends(), "all that was written to be committed", pause=0.1)
        return reader.read_to_end()

    def _ask_until_written(self, count: int) -> None:
        reader = self.reader()

        def are_out() -> bool:
            self.complete_checkpoint()
            return len(reader.read_to_end().seen) >= count

        wait_for(are_out, f"{count} outputs", pause=1)


def make_job(stack: LocalStack, text: str, folder: Path, *, store: str | None = None) -> ScoringJob:
    """A job that is not submitted yet, for the pipeline that `text` describes."""
    pipeline = parse_pipeline(text, where="the test's pipeline", folder=folder)
    file = folder / f"{pipeline.name}.toml"
    file.write_text(text)
    bucket, _, query = stack.addresses().store.partition("?")
    url = store or f"{bucket}/{pipeline.name}?{query}"
    return ScoringJob(stack, pipeline, file, Registry.open(url), url)


@contextlib.contextmanager
def one_job(jobs: Mapping[str, ScoringJob], *arguments: str) -> Iterator[Mapping[str, ScoringJob]]:
    """Submit several pipelines of one store as one job, which ends with the block."""
    first, *others = jobs.values()
    assert all(each.store == first.store for each in others)
    try:
        first.submit(*(word for each in others for word in ("--pipeline", str(each.file))), *arguments)
        for each in others:
            each.job_id = first.job_id
        yield jobs
    finally:
        for each in others:
            each.close()
        first.end()
