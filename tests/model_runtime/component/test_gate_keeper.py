"""The keeper's life: started once, replaced, shared by threads, gone with its program."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ferryline.model_runtime.gate import Gate, GateKeeper, GateLimits, GateUnavailableError
from ferryline.model_runtime.gate.errors import ChildLostError
from ferryline.model_runtime.gate.losses import MOST_LOSSES
from ferryline.registry.errors import RefusedError
from tests import hostile_models as hostile
from tests.onnx_models import golden_rows, linear_classifier
from tests.support.waiting import DEADLINE, wait_for

ROOT = Path(__file__).parents[3]
LIMITS = GateLimits(wall_seconds=DEADLINE)


@pytest.fixture
def gate(keeper: GateKeeper) -> Gate:
    return Gate(LIMITS, keeper=keeper)


@pytest.fixture
def new_keeper() -> Iterator[GateKeeper]:
    """A keeper that has not started anything."""
    made = GateKeeper()
    yield made
    made.stop()


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def child_of(pid: int) -> int | None:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(listed[0]) if listed else None


def at_work(keeper: GateKeeper) -> tuple[int, int]:
    """Wait until a keeper judges something; returns its process and the child that does it."""

    def seen() -> tuple[int, int] | None:
        pid = keeper.pid
        child = child_of(pid) if pid else None
        return (pid, child) if pid and child else None

    return wait_for(seen, "a child at work")


ENDLESS = hostile.loop(2**40)
ALLOWED = GateLimits(wall_seconds=DEADLINE, cpu_seconds=DEADLINE, allow_control_flow=True)


def test_one_process_serves_all_candidates(new_keeper: GateKeeper) -> None:
    gate = Gate(LIMITS, keeper=new_keeper)
    assert new_keeper.pid is None
    gate.admit(linear_classifier())
    first = new_keeper.pid
    assert first is not None
    gate.admit(linear_classifier(8, 3))
    assert new_keeper.pid == first


def test_a_keeper_that_was_killed_is_replaced(gate: Gate, keeper: GateKeeper) -> None:
    gate.admit(linear_classifier())
    first = keeper.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    gate.admit(linear_classifier(8, 3))
    assert keeper.pid not in {None, first}


def test_a_keeper_killed_at_work_costs_one_retry(keeper: GateKeeper) -> None:
    with ThreadPoolExecutor(1) as pool:
        judging = pool.submit(Gate(ALLOWED, keeper=keeper).admit, ENDLESS)
        first, child = at_work(keeper)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: keeper.pid not in {None, first}, "another keeper")
        assert not judging.done()
        # the system ends the second try, and that is told
        second, retry = at_work(keeper)
        os.kill(retry, signal.SIGKILL)
        with pytest.raises(ChildLostError, match="the system ended"):
            judging.result(DEADLINE)
    wait_for(lambda: not running(child), "the end of the first child")
    assert keeper.pid == second


def test_two_keepers_that_end_in_a_row_are_no_verdict(keeper: GateKeeper) -> None:
    with ThreadPoolExecutor(1) as pool:
        judging = pool.submit(Gate(ALLOWED, keeper=keeper).admit, ENDLESS)
        first, _ = at_work(keeper)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: keeper.pid not in {None, first}, "another keeper")
        second, _ = at_work(keeper)
        os.kill(second, signal.SIGKILL)
        with pytest.raises(ChildLostError, match="ended twice"):
            judging.result(DEADLINE)


def test_a_child_killed_once_costs_a_try_and_one_killed_at_every_try_refuses(keeper: GateKeeper) -> None:
    gate, unlucky = Gate(ALLOWED, keeper=keeper), hostile.loop(2**41)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(MOST_LOSSES - 1):
            judging = pool.submit(gate.admit, unlucky)
            os.kill(at_work(keeper)[1], signal.SIGKILL)
            with pytest.raises(ChildLostError, match="the system ended"):
                judging.result(DEADLINE)
        judging = pool.submit(gate.admit, unlucky)
        os.kill(at_work(keeper)[1], signal.SIGKILL)
        with pytest.raises(RefusedError, match="th time in a row") as caught:
            judging.result(DEADLINE)
    assert caught.value.gate == "memory"


def test_a_keeper_that_can_start_no_process_says_so_and_lives(keeper: GateKeeper, gate: Gate) -> None:
    gate.admit(linear_classifier())
    pid = keeper.pid or 0
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    free = (number for number in itertools.count() if number not in opened)
    # room for the two files of a request and for nothing else
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next(itertools.islice(free, 2, None)), limits[1]))
    try:
        with pytest.raises(GateUnavailableError, match=r"could not be started .*Too many"):
            gate.admit(linear_classifier(5, 3))
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    gate.admit(linear_classifier(5, 3))
    assert keeper.pid == pid


def test_threads_share_it_and_a_slow_candidate_holds_nobody_up(gate: Gate, keeper: GateKeeper) -> None:
    with ThreadPoolExecutor(9) as pool:
        slow = pool.submit(Gate(ALLOWED, keeper=keeper).admit, ENDLESS)
        pid, child = at_work(keeper)
        quick = [
            pool.submit(gate.admit, linear_classifier(4 + width, 3), golden_rows(4 + width, 3))
            for width in range(8)
        ]
        widths = [future.result(DEADLINE).inputs[0].shape[1] for future in quick]
        assert widths == list(range(4, 12))
        assert keeper.pid == pid
        assert not slow.done()
        os.kill(child, signal.SIGKILL)
        with pytest.raises(ChildLostError):
            slow.result(DEADLINE)


def test_a_candidate_that_takes_too_long_is_told_the_limit(keeper: GateKeeper) -> None:
    limits = GateLimits(wall_seconds=0.75, cpu_seconds=DEADLINE, allow_control_flow=True)
    refusal = refusal_of(ENDLESS, Gate(limits, keeper=keeper))
    assert refusal.gate == "time"
    assert "0.75 s" in refusal.reason


def refusal_of(data: bytes, gate: Gate) -> RefusedError:
    """The refusal, which on a very busy machine comes only after tries in which the child got too little."""
    for _ in range(MOST_LOSSES):
        try:
            gate.admit(data)
        except RefusedError as error:
            return error
        except GateUnavailableError:
            continue
    raise AssertionError("it was not refused")


def test_it_leaves_when_it_is_idle_and_comes_back() -> None:
    # long enough that no pause of a busy machine is taken for idleness
    keeper = GateKeeper(idle_seconds=2.0)
    gate = Gate(LIMITS, keeper=keeper)
    gate.admit(linear_classifier())
    first = keeper.pid
    wait_for(lambda: keeper.pid is None, "an idle keeper's end")
    # waited for as well: no zombie stays
    wait_for(lambda: not Path(f"/proc/{first}").exists(), "an end that was waited for")
    gate.admit(linear_classifier(8, 3))
    keeper.stop()


def test_it_inherits_nothing(new_keeper: GateKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    secret, other_end = os.pipe()
    os.set_inheritable(secret, True)
    try:
        Gate(LIMITS, keeper=new_keeper).admit(linear_classifier())
    finally:
        os.close(secret)
        os.close(other_end)
    environment = Path(f"/proc/{new_keeper.pid}/environ").read_bytes()
    assert b"secret" not in environment
    opened = {path.readlink().as_posix() for path in Path(f"/proc/{new_keeper.pid}/fd").iterdir()}
    assert not any(target.startswith("pipe:") for target in opened)
    assert len([target for target in opened if target.startswith("socket:")]) == 1
    assert os.getsid(new_keeper.pid or 0) != os.getsid(0)


def test_a_keeper_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = GateKeeper()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(GateUnavailableError, match="does not start: it said nothing"):
        Gate(keeper=keeper).admit(linear_classifier())
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(GateUnavailableError, match="cannot be started"):
        Gate(keeper=keeper).admit(linear_classifier())
    monkeypatch.setattr("ferryline.model_runtime.gate.spawning._MODULE", "no_such_module")
    monkeypatch.setattr(sys, "executable", os.environ.get("PYTHON", "/proc/self/exe"))
    with pytest.raises(GateUnavailableError, match="No module named no_such_module"):
        Gate(keeper=keeper).admit(linear_classifier())


def test_a_keeper_that_hangs_is_replaced(keeper: GateKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    Gate(LIMITS, keeper=keeper).admit(linear_classifier())
    first = keeper.pid or 0
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr("ferryline.model_runtime.gate.keeper._GRACE", 0.2)
    with pytest.raises(GateUnavailableError, match="does not answer"):
        Gate(GateLimits(wall_seconds=0.5), keeper=keeper).admit(linear_classifier(5, 3))
    wait_for(lambda: not running(first), "the end of the keeper that hung")
    monkeypatch.undo()
    Gate(LIMITS, keeper=keeper).admit(linear_classifier(6, 3))


# --- whole programs -------------------------------------------------------------------------------

PROGRAM = """
import os, sys, threading
from ferryline.model_runtime.gate import Gate, GateLimits
from ferryline.model_runtime.gate.keeper import shared_keeper
from ferryline.registry.errors import RefusedError
from tests import hostile_models as hostile
from tests.onnx_models import linear_classifier

Gate().admit(linear_classifier())
print(shared_keeper().pid, flush=True)
"""
HANG = """
limits = GateLimits(wall_seconds=600, cpu_seconds=600, allow_control_flow=True)
threading.Thread(target=Gate(limits).admit, args=[hostile.loop(2**40)], daemon=True).start()
threading.Event().wait()
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
    child = wait_for(lambda: child_of(pid), "a child at work")
    process.send_signal(how)
    process.wait(DEADLINE)
    wait_for(lambda: not running(pid) and not running(child), "the end of the keeper and its child")


def test_a_program_that_ends_leaves_nothing_behind(program: Callable[[str], subprocess.Popen[str]]) -> None:
    process = program("")
    pid = keeper_of(process)
    _, complaints = process.communicate(timeout=DEADLINE)
    assert (process.returncode, complaints) == (0, "")
    wait_for(lambda: not running(pid), "the end of the keeper")


def test_a_forked_program_starts_its_own(program: Callable[[str], subprocess.Popen[str]]) -> None:
    process = program(FORK)
    output, complaints = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, complaints
    before, after = output.split()
    assert before == after


def test_a_thread_that_ends_does_not_take_the_keeper_along(new_keeper: GateKeeper) -> None:
    gate = Gate(LIMITS, keeper=new_keeper)
    thread = threading.Thread(target=gate.admit, args=[linear_classifier()])
    thread.start()
    thread.join(DEADLINE)
    first = new_keeper.pid
    assert first is not None
    gate.admit(linear_classifier(8, 3))
    assert new_keeper.pid == first
