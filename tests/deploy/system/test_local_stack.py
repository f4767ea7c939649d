"""The local stack, by one part of it: MinIO, which starts fastest."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ferryline.deploy.stack import process
from ferryline.deploy.stack.errors import PartUnreachableError, PortTakenError, StackUsageError
from ferryline.deploy.stack.local import LocalStack
from ferryline.deploy.stack.ports import LOOPBACK, any_free, is_free
from ferryline.deploy.stack.state import load_state
from ferryline.deploy.stack.status import Condition
from tests.support.ports import private_ports
from tests.support.shared_stack import RUN_VARIABLE
from tests.support.waiting import DEADLINE, wait_for

KEPT = ("FERRY_CACHE", RUN_VARIABLE)


def clean_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in KEPT or "FERRY_" not in name}


def mark_of(stack: LocalStack) -> str:
    return load_state(stack.home.state_file).mark


def conditions(stack: LocalStack) -> dict[str, Condition]:
    return {row.name: row.condition for row in stack.status()}


@pytest.fixture(scope="module")
def minio_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack with MinIO only, which the tests may stop."""
    made = LocalStack(home=tmp_path_factory.mktemp("stack"), environ=clean_environ())
    try:
        made.up(["minio"], ports=private_ports())
        yield made
    finally:
        made.down()


def test_a_part_whose_port_another_server_has_taken_is_not_thought_to_be_back(
    minio_stack: LocalStack,
) -> None:
    port = int(minio_stack.up(["minio"]).store.rpartition(":")[2])
    minio_stack.kill_part("minio")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((LOOPBACK, port))
        other.listen()
        with pytest.raises(PortTakenError, match=f"port {port} for MinIO is taken"):
            minio_stack.start_part("minio")
    minio_stack.start_part("minio")
    assert conditions(minio_stack)["minio"] is Condition.RUNNING


def test_a_running_part_is_not_moved_to_another_port(minio_stack: LocalStack) -> None:
    minio_stack.up(["minio"])
    with pytest.raises(StackUsageError, match="ferry-stack down"):
        minio_stack.up(["minio"], ports={"minio": any_free()})


def test_a_part_that_died_is_restarted_where_it_was(minio_stack: LocalStack) -> None:
    addresses = minio_stack.up(["minio"])
    minio_stack.kill_part("minio")
    assert conditions(minio_stack)["minio"] is Condition.DIED
    assert minio_stack.up(["minio"]) == addresses
    assert conditions(minio_stack)["minio"] is Condition.RUNNING


def test_down_leaves_no_process_and_up_finds_the_data_again(minio_stack: LocalStack) -> None:
    addresses = minio_stack.up(["minio"])
    minio_stack.down()
    assert process.marked(mark_of(minio_stack)) == []
    assert conditions(minio_stack)["minio"] is Condition.STOPPED
    assert (minio_stack.home.minio / "data" / "models").is_dir()
    assert minio_stack.up(["minio"]).store == addresses.store


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
        [sys.executable, "-m", "ferryline.deploy.stack", "up", "--only", "kafka"],
        env=environ,
        stderr=subprocess.PIPE,
    )
    stack = LocalStack(home=tmp_path, environ=clean_environ())
    wait_for(lambda: load_state(stack.home.state_file).processes, "a process of Kafka")
    up.send_signal(number)
    _, words = up.communicate(timeout=DEADLINE)
    assert up.returncode not in {0, 2, 6}
    assert b"Traceback" not in words
    assert process.marked(mark_of(stack)) == []
    assert set(conditions(stack).values()) == {Condition.STOPPED}
