"""The keeper's life: started once, replaced, shared by threads, gone with its program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_runtime.gate import Gate, GateKeeper, GateLimits, GateUnavailableError
from registry.errors import RefusedError
from tests import hostile_models as hostile
from tests.onnx_models import golden_rows, linear_classifier

pytestmark = pytest.mark.integration

DEADLINE = 30.0
ROOT = Path(__file__).parents[3]
LIMITS = GateLimits(wall_seconds=60.0)


@pytest.fixture
def keeper() -> Iterator[GateKeeper]:
    made = GateKeeper()
    yield made
    made.stop()


@pytest.fixture
def gate(keeper: GateKeeper) -> Gate:
    return Gate(LIMITS, keeper=keeper)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def child_of(pid: int) -> int | None:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(listed[0]) if listed else None


def endless(seconds: float = 60.0) -> tuple[bytes, GateLimits]:
    limits = GateLimits(wall_seconds=seconds, cpu_seconds=seconds, allow_control_flow=True)
    return hostile.loop(2**40), limits


def test_one_process_serves_all_candidates(gate: Gate, keeper: GateKeeper) -> None:
    assert keeper.pid is None
    gate.admit(linear_classifier())
    first = keeper.pid
    gate.admit(linear_classifier(8, 3))
    assert keeper.pid == first


def test_a_keeper_that_was_killed_is_replaced(gate: Gate, keeper: GateKeeper) -> None:
    gate.admit(linear_classifier())
    first = keeper.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    gate.admit(linear_classifier(8, 3))
    assert keeper.pid not in {None, first}


def test_a_keeper_killed_at_work_costs_one_retry(keeper: GateKeeper) -> None:
    data, limits = endless(3.0)
    with ThreadPoolExecutor(1) as pool:
        judging = pool.submit(Gate(limits, keeper=keeper).admit, data)
        wait_until(lambda: keeper.pid and child_of(keeper.pid))
        first = keeper.pid or 0
        child = child_of(first) or 0
        os.kill(first, signal.SIGKILL)
        with pytest.raises(RefusedError, match="3 s"):
            judging.result(DEADLINE)
    wait_until(lambda: not running(child))
    assert keeper.pid != first


def test_a_candidate_that_ends_every_keeper_is_refused(keeper: GateKeeper) -> None:
    data, limits = endless()
    with ThreadPoolExecutor(1) as pool:
        judging = pool.submit(Gate(limits, keeper=keeper).admit, data)
        ended: list[int | None] = []
        for _ in range(2):
            wait_until(lambda: keeper.pid and keeper.pid not in ended and child_of(keeper.pid))
            ended.append(keeper.pid)
            os.kill(keeper.pid or 0, signal.SIGKILL)
        with pytest.raises(RefusedError, match="ended twice") as caught:
            judging.result(DEADLINE)
    assert caught.value.gate == "crash"


def test_a_child_killed_from_outside_says_nothing_good_of_its_model(keeper: GateKeeper) -> None:
    data, limits = endless()
    with ThreadPoolExecutor(1) as pool:
        judging = pool.submit(Gate(limits, keeper=keeper).admit, data)
        wait_until(lambda: keeper.pid and child_of(keeper.pid))
        os.kill(child_of(keeper.pid or 0) or 0, signal.SIGKILL)
        with pytest.raises(RefusedError, match="the system ended") as caught:
            judging.result(DEADLINE)
    assert caught.value.gate == "memory"


def test_threads_share_it_and_a_slow_candidate_holds_nobody_up(keeper: GateKeeper) -> None:
    data, limits = endless(4.0)
    gate = Gate(LIMITS, keeper=keeper)
    with ThreadPoolExecutor(9) as pool:
        slow = pool.submit(Gate(limits, keeper=keeper).admit, data)
        wait_until(lambda: keeper.pid and child_of(keeper.pid))
        quick = [
            pool.submit(gate.admit, linear_classifier(4 + width, 3), golden_rows(4 + width, 3))
            for width in range(8)
        ]
        widths = [future.result(DEADLINE).inputs[0].shape[1] for future in quick]
        assert widths == list(range(4, 12))
        with pytest.raises(RefusedError, match="4 s"):
            slow.result(DEADLINE)


def test_it_leaves_when_it_is_idle_and_comes_back() -> None:
    keeper = GateKeeper(idle_seconds=0.2)
    gate = Gate(LIMITS, keeper=keeper)
    gate.admit(linear_classifier())
    first = keeper.pid
    wait_until(lambda: keeper.pid is None)
    wait_until(lambda: not Path(f"/proc/{first}").exists())  # waited for as well: no zombie stays
    gate.admit(linear_classifier(8, 3))
    keeper.stop()


def test_it_inherits_nothing(gate: Gate, keeper: GateKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    secret, _ = os.pipe()
    os.set_inheritable(secret, True)
    gate.admit(linear_classifier())
    environment = Path(f"/proc/{keeper.pid}/environ").read_bytes()
    assert b"secret" not in environment
    opened = {path.readlink().as_posix() for path in Path(f"/proc/{keeper.pid}/fd").iterdir()}
    assert not any(target.startswith("pipe:") for target in opened)
    assert len([target for target in opened if target.startswith("socket:")]) == 1
    assert os.getsid(keeper.pid or 0) != os.getsid(0)


def test_a_keeper_that_does_not_start_says_why(keeper: GateKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(GateUnavailableError, match="does not start: it said nothing"):
        Gate(keeper=keeper).admit(linear_classifier())
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(GateUnavailableError, match="cannot be started"):
        Gate(keeper=keeper).admit(linear_classifier())
    monkeypatch.setattr("model_runtime.gate.spawning._MODULE", "no_such_module")
    monkeypatch.setattr(sys, "executable", os.environ.get("PYTHON", "/proc/self/exe"))
    with pytest.raises(GateUnavailableError, match="No module named no_such_module"):
        Gate(keeper=keeper).admit(linear_classifier())


def test_a_keeper_that_hangs_is_replaced(keeper: GateKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(GateLimits(wall_seconds=0.5), keeper=keeper)
    gate.admit(linear_classifier())
    first = keeper.pid or 0
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr("model_runtime.gate.keeper._GRACE", 0.2)
    with pytest.raises(GateUnavailableError, match="does not answer"):
        gate.admit(linear_classifier(5, 3))
    assert not running(first)
    monkeypatch.undo()
    Gate(LIMITS, keeper=keeper).admit(linear_classifier(6, 3))


# --- whole programs -------------------------------------------------------------------------------

PROGRAM = """
import os, sys, threading, time
from model_runtime.gate import Gate, GateLimits
from model_runtime.gate.keeper import shared_keeper
from registry.errors import RefusedError
from tests import hostile_models as hostile
from tests.onnx_models import linear_classifier

Gate().admit(linear_classifier())
print(shared_keeper().pid, flush=True)
"""
HANG = """
limits = GateLimits(allow_control_flow=True)
threading.Thread(target=Gate(limits).admit, args=[hostile.loop(2**40)], daemon=True).start()
time.sleep(600)
"""
FORK = """
pid = os.fork()
if pid == 0:
    assert shared_keeper().pid is None
    Gate().admit(linear_classifier(8, 3))
    assert shared_keeper().pid not in (None, int(sys.argv[1]) if len(sys.argv) > 1 else None)
    shared_keeper().stop()
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
Gate().admit(linear_classifier(9, 3))
print(shared_keeper().pid, flush=True)
"""


@pytest.fixture
def program() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(text: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + text],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def keeper_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_program_and_takes_its_children_along(
    program: Callable[[str], subprocess.Popen[str]], how: signal.Signals
) -> None:
    process = program(HANG)
    pid = keeper_of(process)
    wait_until(lambda: child_of(pid))
    child = child_of(pid) or 0
    process.send_signal(how)
    process.wait(DEADLINE)
    wait_until(lambda: not running(pid) and not running(child))


def test_a_program_that_ends_leaves_nothing_behind(program: Callable[[str], subprocess.Popen[str]]) -> None:
    process = program("")
    pid = keeper_of(process)
    _, complaints = process.communicate(timeout=DEADLINE)
    assert (process.returncode, complaints) == (0, "")
    wait_until(lambda: not running(pid))


def test_a_forked_program_starts_its_own(program: Callable[[str], subprocess.Popen[str]]) -> None:
    process = program(FORK)
    output, complaints = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, complaints
    before, after = output.split()
    assert before == after


def test_a_thread_that_ends_does_not_take_the_keeper_along(gate: Gate, keeper: GateKeeper) -> None:
    thread = threading.Thread(target=gate.admit, args=[linear_classifier()])
    thread.start()
    thread.join(DEADLINE)
    first = keeper.pid
    gate.admit(linear_classifier(8, 3))
    assert keeper.pid == first
