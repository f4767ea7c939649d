"""All parts of the local stack at once."""

from __future__ import annotations

from ipaddress import ip_address

import httpx
import psutil

from ferryline.deploy.stack import process
from ferryline.deploy.stack.local import LocalStack
from ferryline.deploy.stack.parts import flink, kafka
from ferryline.deploy.stack.state import load_state
from ferryline.deploy.stack.status import Condition


def pids(stack: LocalStack) -> dict[str, int | None]:
    return {row.name: row.pid for row in stack.status()}


def test_every_part_answers(fault_stack: LocalStack) -> None:
    addresses = fault_stack.up()
    assert kafka.answers(addresses.kafka)
    assert httpx.get(f"{addresses.flink}/overview").json()["slots-total"] >= 2
    assert {row.condition for row in fault_stack.status()} == {Condition.RUNNING}


def test_idle_it_fits_a_laptop(fault_stack: LocalStack) -> None:
    fault_stack.up()
    assert sum(row.memory_bytes for row in fault_stack.status()) < 3 * 1024**3


def test_up_again_changes_nothing(fault_stack: LocalStack) -> None:
    addresses, before = fault_stack.up(), pids(fault_stack)
    assert fault_stack.up() == addresses
    assert pids(fault_stack) == before


def test_everything_listens_to_this_machine_only(fault_stack: LocalStack) -> None:
    fault_stack.up()
    listening = [
        (connection.laddr.port, connection.laddr.ip)
        for each in process.marked(load_state(fault_stack.home.state_file).mark)
        for connection in each.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    ports = load_state(fault_stack.home.state_file).ports
    # Flink's Prometheus reporter cannot be told where to listen
    elsewhere = {ports[flink.TASK_METRICS.name], ports[flink.JOB_METRICS.name]}
    assert {port for port, ip in listening if not _is_loopback(ip)} <= elsewhere
    assert not elsewhere - {port for port, _ in listening}


def _is_loopback(ip: str) -> bool:
    return ip_address(ip.removeprefix("::ffff:")).is_loopback
