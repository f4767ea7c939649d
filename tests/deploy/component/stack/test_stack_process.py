"""Servers of the stack as processes: marked, found again, stopped, waited for."""

import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ferryline.deploy.stack import process
from ferryline.deploy.stack.errors import PartFailedError
from ferryline.deploy.stack.launch import Awaited, wait_until_ready
from ferryline.deploy.stack.state import ProcessRecord
from ferryline.registry.cli.edge import ExitCode, exit_code
from tests.support.waiting import DEADLINE, wait_for

Spawn = Callable[[list[str]], ProcessRecord]

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(3600)"]
_IGNORE_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN = [sys.executable, "-c", f"{_IGNORE_SIGTERM}{SLEEP[-1]}"]
PARENT = [sys.executable, "-c", f"import subprocess, time; subprocess.Popen({SLEEP!r}); time.sleep(3600)"]


@pytest.fixture
def mark() -> Iterator[str]:
    text = f"test-{uuid.uuid4().hex}"
    yield text
    process.end_all(process.marked(text), deadline_s=DEADLINE)


@pytest.fixture
def spawn(tmp_path: Path, mark: str) -> Iterator[Spawn]:
    started: list[ProcessRecord] = []

    def start(command: list[str]) -> ProcessRecord:
        record = process.spawn(
            command,
            environ=os.environ,
            mark=f"{mark}/x",
            folder=tmp_path,
            log=tmp_path / "x.log",
            address="here",
        )
        started.append(record)
        return record

    yield start
    # by their records, as a mark can be read only a moment after a process has begun
    process.stop(started, deadline_s=DEADLINE)


def test_a_server_is_stopped_when_asked(spawn: Spawn) -> None:
    record = spawn(SLEEP)
    assert process.is_alive(record)
    process.stop([record], deadline_s=DEADLINE)
    assert not process.is_alive(record)


def test_a_server_that_does_not_listen_is_killed_at_the_deadline(spawn: Spawn, tmp_path: Path) -> None:
    record = spawn(STUBBORN)
    wait_for(lambda: process.tail(tmp_path / "x.log", 1) == "up", "the server to be up")
    process.stop([record], deadline_s=0.2)
    assert not process.is_alive(record)


def test_a_reused_pid_is_another_process(spawn: Spawn) -> None:
    record = spawn(SLEEP)
    stranger = record.model_copy(update={"created": record.created - 3600})
    assert not process.is_alive(stranger)
    process.stop([stranger], deadline_s=DEADLINE)
    assert not process.signal_process(stranger, signal.SIGKILL)
    assert process.is_alive(record)


def test_workers_of_a_killed_parent_are_found_by_their_mark(spawn: Spawn, mark: str) -> None:
    record = spawn(PARENT)
    wait_for(lambda: len(process.marked(mark)) == 2, "the parent to have a child")
    process.signal_process(record, signal.SIGKILL)
    process.wait_gone(record, deadline_s=DEADLINE)
    assert len(process.marked(mark)) == 1
    process.end_all(process.marked(mark), deadline_s=DEADLINE)
    assert process.marked(mark) == []


def test_a_process_that_ended_by_itself_is_not_alive(spawn: Spawn) -> None:
    record = spawn([sys.executable, "-c", ""])
    wait_for(lambda: not process.is_alive(record), "the end of the process")
    assert not psutil.pid_exists(record.pid)


def test_memory_counts_children(spawn: Spawn, mark: str) -> None:
    record = spawn(PARENT)
    wait_for(lambda: len(process.marked(mark)) == 2, "the parent to have a child")

    def of_the_parent() -> int:
        full = psutil.Process(record.pid).memory_full_info()
        return int(getattr(full, "pss", 0) or full.rss)

    wait_for(lambda: process.memory_of(record) > of_the_parent(), "the memory of both")


def test_a_new_start_keeps_the_old_log_aside(spawn: Spawn, tmp_path: Path) -> None:
    process.stop([spawn(SLEEP)], deadline_s=DEADLINE)
    (tmp_path / "x.log").write_text("before\n")
    process.stop([spawn(SLEEP)], deadline_s=DEADLINE)
    assert (tmp_path / "x.log.1").read_text() == "before\n"


def test_waiting_ends_when_every_server_answers(spawn: Spawn) -> None:
    told: list[str] = []
    answers = iter([False, False, True])
    wait_until_ready([Awaited("x", lambda: next(answers), DEADLINE, spawn(SLEEP))], told.append)
    assert told[0].startswith("x is ready after")


def test_a_server_that_ends_while_starting_is_reported_with_its_last_words(spawn: Spawn) -> None:
    record = spawn([sys.executable, "-c", "print('no such port')"])
    with pytest.raises(PartFailedError, match="ended while starting") as caught:
        wait_until_ready([Awaited("x", lambda: False, DEADLINE, record)], print)
    assert caught.value.tail == "no such port"
    assert exit_code(caught.value) is ExitCode.UNREACHABLE


def test_a_server_that_is_too_slow_is_reported(spawn: Spawn) -> None:
    with pytest.raises(PartFailedError, match="was not ready after 0 s"):
        wait_until_ready([Awaited("x", lambda: False, 0.1, spawn(SLEEP))], print)
