"""A cluster of its own for one job: the commands of docs/flink-operations.md, and a restart that goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.stack.local import LocalStack
from tests.flink_scoring.harness import make_job, wait_for
from tests.flink_scoring.replays import (
    every_answer,
    feeding,
    require_one_generation_per_record,
    wait_until_scored_by,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

DRIVER = "org.apache.flink.client.python.PythonDriver"
PATIENT = 240.0


@dataclass
class Cluster:
    """A job manager that is its job, and a task manager, beside the stack's own."""

    bin: Path
    environ: Mapping[str, str]
    log: Path
    rest: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A server in a session of its own, so that its Python workers end with it."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [self.bin / script, "start-foreground", *arguments],
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it with all that it started."""
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(30)
        self.running.remove(process)

    def runs(self) -> bool:
        """Whether its job does."""
        try:
            jobs = httpx.get(f"{self.rest}/jobs/overview", timeout=5).json()["jobs"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return [job["state"] for job in jobs] == ["RUNNING"]


@pytest.fixture
def cluster(stack: LocalStack, tmp_path: Path) -> Iterator[Cluster]:
    _, environ = stack.flink_command("list")
    conf = tmp_path / "conf"
    shutil.copytree(environ["FLINK_CONF_DIR"], conf)
    rest, rpc = _free_port(), _free_port()
    own = {"rest.port": rest, "rest.bind-port": rest, "jobmanager.rpc.port": rpc, "io.tmp.dirs": tmp_path}
    config = conf / "config.yaml"
    kept = [line for line in config.read_text().splitlines() if line.split(":")[0] not in own]
    lines = [*kept, *(f"{name}: {value}" for name, value in own.items())]
    config.write_text("".join(f"{line}\n" for line in lines if not line.startswith("metrics.reporter")))
    made = Cluster(
        Path(environ["FLINK_HOME"]) / "bin",
        {**environ, "FLINK_CONF_DIR": str(conf)},
        tmp_path / "cluster.log",
        f"http://127.0.0.1:{rest}",
    )
    yield made
    for process in list(made.running):
        made.end(process)


def test_a_cluster_of_its_own_scores_and_goes_on_when_its_job_manager_was_killed(
    stack: LocalStack,
    cluster: Cluster,
    pipeline_text: Callable[[str], str],
    constant_model: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    job = make_job(stack, pipeline_text(f"application-{uuid.uuid4().hex[:8]}"), tmp_path)
    job.create_source()
    job.promote(constant_model(1))
    arguments = ["--job-classname", DRIVER, "-pym", "flink_scoring.job", "--pipeline", str(job.file)]
    arguments += ["--store", job.store, "--restore", "newest"]
    with feeding(job, rate=50) as sent:
        manager = cluster.start("standalone-job.sh", *arguments)
        cluster.start("taskmanager.sh")
        try:
            job.read(lambda output: len(output.seen) > 50, deadline=PATIENT)
        except AssertionError as error:
            pytest.fail(f"{error}\n{cluster.log.read_text()[-8000:]}")
        cluster.end(manager)
        job.promote(constant_model(2))
        cluster.start("standalone-job.sh", *arguments)
        wait_for(cluster.runs, "the job to run again", deadline=PATIENT)
        wait_until_scored_by(job, 2)
    output = job.read_all(len(sent), deadline=PATIENT)
    assert sorted(output.seen) == sorted(sent.places)
    require_one_generation_per_record(every_answer(job), sent)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
