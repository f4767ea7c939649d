"""The whole local stack, brought up in a folder of its own on free ports, with the machine's shared cache."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.stack import process
from deploy.stack.addresses import Addresses
from deploy.stack.errors import PartUnreachableError, PortTakenError, StackUsageError
from deploy.stack.local import LocalStack
from deploy.stack.parts import flink, kafka
from deploy.stack.ports import LOOPBACK, any_free, is_free
from deploy.stack.state import load_state
from deploy.stack.status import Condition

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1500),
    # kafka-python reads its schemas so when it is first imported, which the stack's probe does
]

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


def clean_environ() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name == "FERRY_CACHE" or "FERRY_" not in name
    }


def free_ports() -> dict[str, int]:
    return {part: any_free() for part in ("kafka", "minio", "flink")}


def wait_for(condition: Callable[[], object], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.2)


def mark_of(stack: LocalStack) -> str:
    return load_state(stack.home.state_file).mark


def conditions(stack: LocalStack) -> dict[str, Condition]:
    return {row.name: row.condition for row in stack.status()}


def pids(stack: LocalStack) -> dict[str, int | None]:
    return {row.name: row.pid for row in stack.status()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    made = LocalStack(home=tmp_path_factory.mktemp("stack"), environ=clean_environ())
    try:
        made.up(ports=free_ports())
        yield made
    finally:
        made.down()


@pytest.fixture
def addresses(stack: LocalStack) -> Addresses:
    return stack.up()


def test_every_part_answers(stack: LocalStack, addresses: Addresses) -> None:
    assert kafka.answers(addresses.kafka)
    assert httpx.get(f"{addresses.flink}/overview").json()["slots-total"] >= 2
    assert set(conditions(stack).values()) == {Condition.RUNNING}


def test_idle_it_fits_a_laptop(stack: LocalStack, addresses: Addresses) -> None:
    assert sum(row.memory_bytes for row in stack.status()) < 3 * 1024**3


def test_up_again_changes_nothing(stack: LocalStack, addresses: Addresses) -> None:
    before = pids(stack)
    assert stack.up() == addresses
    assert pids(stack) == before


def test_everything_listens_to_this_machine_only(stack: LocalStack, addresses: Addresses) -> None:
    listening = [
        (connection.laddr.port, connection.laddr.ip)
        for each in process.marked(mark_of(stack))
        for connection in each.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    ports = load_state(stack.home.state_file).ports
    # Flink's Prometheus reporter cannot be told where to listen
    elsewhere = {ports[flink.TASK_METRICS.name], ports[flink.JOB_METRICS.name]}
    assert {port for port, ip in listening if not _is_loopback(ip)} <= elsewhere
    assert not elsewhere - {port for port, _ in listening}


def _is_loopback(ip: str) -> bool:
    return ip_address(ip.removeprefix("::ffff:")).is_loopback


def test_a_part_whose_port_another_server_has_taken_is_not_thought_to_be_back(stack: LocalStack) -> None:
    port = int(stack.addresses().store.rpartition(":")[2])
    stack.kill_part("minio")
    try:
        with socket.socket() as other:
            other.bind((LOOPBACK, port))
            other.listen()
            with pytest.raises(PortTakenError, match=f"port {port} for MinIO is taken"):
                stack.start_part("minio")
    finally:
        stack.start_part("minio")


def test_a_running_part_is_not_moved_to_another_port(stack: LocalStack, addresses: Addresses) -> None:
    with pytest.raises(StackUsageError, match="ferry-stack down"):
        stack.up(ports={"kafka": any_free()})


def test_a_part_that_died_is_restarted_where_it_was(stack: LocalStack, addresses: Addresses) -> None:
    stack.kill_part("minio")
    assert conditions(stack)["minio"] is Condition.DIED
    assert stack.up() == addresses
    assert conditions(stack)["minio"] is Condition.RUNNING


def test_a_job_survives_its_task_manager(stack: LocalStack, addresses: Addresses, tmp_path: Path) -> None:
    file = tmp_path / "job.py"
    file.write_text(JOB)
    command, environ = stack.flink_command("run", "-d", "-py", str(file))
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    job = answer.stdout.split("JobID ")[1].split()[0]

    def checkpoints(kind: str) -> int:
        counts = httpx.get(f"{addresses.flink}/jobs/{job}/checkpoints").json().get("counts", {})
        return int(counts.get(kind, 0))

    wait_for(lambda: checkpoints("completed") >= 1, seconds=90)
    stack.kill_part("taskmanager")
    stack.start_part("taskmanager")
    wait_for(lambda: checkpoints("restored") >= 1, seconds=90)
    done = checkpoints("completed")
    wait_for(lambda: checkpoints("completed") > done, seconds=90)
    stored = next(iter((stack.home.minio / "data" / "flink" / "checkpoints" / job).glob("chk-*")))
    assert stored.is_dir()
    httpx.patch(f"{addresses.flink}/jobs/{job}?mode=cancel").raise_for_status()


def test_down_leaves_no_process_and_up_finds_the_data_again(stack: LocalStack, addresses: Addresses) -> None:
    models = stack.home.minio / "data" / "models"
    stack.down()
    assert process.marked(mark_of(stack)) == []
    assert set(conditions(stack).values()) == {Condition.STOPPED}
    assert models.is_dir()
    assert stack.up(["minio"]).store == addresses.store


def test_a_taken_port_asked_for_is_refused_and_nothing_starts(tmp_path: Path) -> None:
    stack = LocalStack(home=tmp_path, environ=clean_environ())
    with socket.create_server((LOOPBACK, 0)) as busy:
        taken = busy.getsockname()[1]
        assert not is_free(taken)
        with pytest.raises(PortTakenError, match=str(taken)):
            stack.up(["minio"], ports={"minio": taken})
    assert process.marked(mark_of(stack)) == []


def test_two_stacks_run_side_by_side(tmp_path: Path) -> None:
    first = LocalStack(home=tmp_path / "one", environ=clean_environ())
    second = LocalStack(home=tmp_path / "two", environ=clean_environ())
    try:
        stores = {first.up(["minio"]).store, second.up(["minio"]).store}
        assert len(stores) == 2
        first.down(wipe=True)
        assert conditions(second)["minio"] is Condition.RUNNING
    finally:
        first.down()
        second.down()


def test_a_part_that_runs_elsewhere_is_used_and_not_stopped(tmp_path: Path) -> None:
    owner = LocalStack(home=tmp_path / "owner", environ=clean_environ())
    try:
        store = owner.up(["minio"]).store
        guest = LocalStack(home=tmp_path / "guest", environ={**clean_environ(), "FERRY_STORE": store})
        assert guest.up(["minio"]).store == store
        assert conditions(guest)["minio"] is Condition.EXTERNAL
        guest.down()
        assert conditions(owner)["minio"] is Condition.RUNNING
        owner.down()
        with pytest.raises(PartUnreachableError, match="FERRY_STORE"):
            guest.up(["minio"])
    finally:
        owner.down()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_stops_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    environ = {**clean_environ(), "FERRY_STACK_HOME": str(tmp_path)}
    up = subprocess.Popen(
        [sys.executable, "-m", "deploy.stack.cli", "up", "--only", "kafka"],
        env=environ,
        stderr=subprocess.PIPE,
    )
    stack = LocalStack(home=tmp_path, environ=clean_environ())
    wait_for(lambda: load_state(stack.home.state_file).processes, seconds=60)
    up.send_signal(number)
    _, words = up.communicate(timeout=60)
    assert up.returncode not in {0, 2, 6}
    assert b"Traceback" not in words
    assert process.marked(mark_of(stack)) == []
    assert set(conditions(stack).values()) == {Condition.STOPPED}
