"""A job that knows nothing of the registry, on the local stack's Flink."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx

from ferryline.deploy.stack.local import LocalStack
from tests.support.waiting import DEADLINE, wait_for

JOB = """\
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import udf

table = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
table.get_config().set("execution.checkpointing.interval", "1 s")
table.create_temporary_function("increment", udf(lambda n: n + 1, result_type=DataTypes.BIGINT()))
table.execute_sql("CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10')")
table.execute_sql("CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole')")
table.execute_sql("INSERT INTO nowhere SELECT increment(n) FROM numbers")
"""


def test_a_job_survives_its_task_manager(fault_stack: LocalStack, tmp_path: Path) -> None:
    stack, addresses = fault_stack, fault_stack.up()
    file = tmp_path / "job.py"
    file.write_text(JOB)
    command, environ = stack.flink_command("run", "-d", "-py", str(file))
    answer = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    job = answer.stdout.split("JobID ")[1].split()[0]

    def checkpoints(kind: str) -> int:
        counts = httpx.get(f"{addresses.flink}/jobs/{job}/checkpoints").json().get("counts", {})
        return int(counts.get(kind, 0))

    wait_for(lambda: checkpoints("completed") >= 1, "a checkpoint")
    stack.kill_part("taskmanager")
    stack.start_part("taskmanager")
    wait_for(lambda: checkpoints("restored") >= 1, "a restored checkpoint")
    done = checkpoints("completed")
    wait_for(lambda: checkpoints("completed") > done, "another checkpoint")
    stored = next(iter((stack.home.minio / "data" / "flink" / "checkpoints" / job).glob("chk-*")))
    assert stored.is_dir()
    httpx.patch(f"{addresses.flink}/jobs/{job}?mode=cancel").raise_for_status()
