"""A cluster of its own for one job: the commands of docs/flink-operations.md, and a restart that goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from ferryline.deploy.stack.local import LocalStack
from tests.flink_scoring.harness import make_job
from tests.flink_scoring.replays import (
    every_answer,
    feeding,
    require_one_generation_per_record,
    wait_until_scored_by,
)
from tests.support.ports import private_ports
from tests.support.waiting import DEADLINE, wait_for

pytestmark = pytest.mark.early

DRIVER = "org.apache.flink.client.python.PythonDriver"


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
        process.wait(DEADLINE)
        self.running.remove(process)

    def running_job(self) -> str:
        """The id of its job; nothing while that does not run."""
        try:
            jobs = httpx.get(f"{self.rest}/jobs/overview", timeout=DEADLINE).json()["jobs"]
        except (httpx.HTTPError, ValueError, KeyError):
            return ""
        return next((str(job["jid"]) for job in jobs if job["state"] == "RUNNING"), "")


@pytest.fixture
def cluster(stack: LocalStack, tmp_path: Path) -> Iterator[Cluster]:
    _, environ = stack.flink_command("list")
    conf = tmp_path / "conf"
    shutil.copytree(environ["FLINK_CONF_DIR"], conf)
    rest, rpc = list(private_ports().values())[:2]
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
    arguments = [
        "--job-classname",
        DRIVER,
        "-pym",
        "ferryline.flink_scoring.job",
        "--pipeline",
        str(job.file),
    ]
    arguments += ["--store", job.store, "--restore", "newest"]
    job.rest = cluster.rest
    try:
        with feeding(job) as sent:
            manager = cluster.start("standalone-job.sh", *arguments)
            cluster.start("taskmanager.sh")
            try:
                job.read(lambda output: len(output.seen) > 50)
            except AssertionError as error:
                pytest.fail(f"{error}\n{cluster.log.read_text()[-8000:]}")
            cluster.end(manager)
            job.promote(constant_model(2))
            cluster.start("standalone-job.sh", *arguments)
            wait_until_scored_by(job, 2)
        job.job_id = wait_for(cluster.running_job, "the job to run again", pause=0.2)
        output = job.read_all(len(sent))
        assert sorted(output.seen) == sorted(sent.places)
        require_one_generation_per_record(every_answer(job), sent)
    finally:
        job.close()
