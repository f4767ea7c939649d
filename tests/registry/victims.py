"""A process that forks one writer after another and ends or freezes each at a chosen step.

It has one thread and has imported everything, so a fork is clean and takes milliseconds; and being their
parent it learns from the kernel what became of its children. Orders come as JSON lines on standard input,
answers go to standard output.

    {"call": "promote", "url": …, "at": 7, "signal": "SIGKILL", "name": …}   a writer, stopped at step 7
    {"resume": PID}                                                          a frozen writer goes on
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import orjson

from ferryline.registry import Registry
from ferryline.registry.cli.edge import exit_code
from ferryline.registry.errors import FerryError
from ferryline.registry.stores import Store, folder, open_store, s3
from tests.faulty_store import SteppingStore
from tests.registry.histories import facts
from tests.support.waiting import DEADLINE

MODEL = "digits"
OBJECT = "log/0000000001.json"
_IMPORTED = (folder, s3)
"""Both stores are imported before the first fork; a writer would import its own anew each time."""
CRASHED = 99
"""The exit status of a writer with a fault of its own."""


@dataclass(frozen=True, slots=True)
class Order:
    """A writer, and where it is stopped.

    Args:
        call: what it does; a key of `CALLS`.
        url: the store it does it in.
        at: the step: before and after each request to the store, or each line of the folder store.
        signal: what stops it there.
        name: what it leaves to be recognised by.
        lines: whether the steps are lines of `ferryline.registry.stores.folder`.
    """

    call: str
    url: str
    at: int
    signal: str = "SIGKILL"
    name: str = ""
    lines: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of a writer: its exit status, or the signal that ended or froze it."""

    pid: int
    exited: int | None = None
    killed: int | None = None
    frozen: int | None = None


CALLS: Mapping[str, Callable[[Store, str], object]] = {
    "promote": lambda store, name: Registry(store, actor="victim").promote(MODEL, 2, reason=name),
    "rollback": lambda store, name: Registry(store, actor="victim").rollback(MODEL, reason=name),
    "hold": lambda store, name: Registry(store, actor="victim").hold(MODEL, reason=name),
    "publish": lambda store, name: Registry(store, actor=name).publish(MODEL, name.encode(), facts()),
    "put_if_absent": lambda store, name: store.put_if_absent(OBJECT, name.encode()),
    "put": lambda store, name: store.put(OBJECT, name.encode()),
}


# --- for tests ------------------------------------------------------------------------------------


class Victims:
    """The process, as a test uses it; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=DEADLINE)  # it ends where its orders do

    def run(self, order: Order) -> Ending:
        """Start a writer, and wait until it is stopped or done."""
        return self._ask(asdict(order))

    def resume(self, frozen: Ending) -> Ending:
        """Let a frozen writer go on to its end."""
        return self._ask({"resume": frozen.pid})

    def _ask(self, what: dict[str, Any]) -> Ending:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(what) + b"\n")
        self._process.stdin.flush()
        answer = Ending(**orjson.loads(self._process.stdout.readline()))
        assert answer.exited != CRASHED, "the writer had a fault of its own; see standard error"
        return answer


# --- in the process -------------------------------------------------------------------------------


def main() -> None:
    """Follow the orders until there are no more."""
    frozen: set[int] = set()
    for line in sys.stdin.buffer:
        ending = _obey(orjson.loads(line))
        (frozen.add if ending.frozen else frozen.discard)(ending.pid)
        sys.stdout.buffer.write(orjson.dumps(asdict(ending)) + b"\n")
        sys.stdout.buffer.flush()
    for pid in frozen:  # a test failed halfway; nothing of it may stay behind
        os.kill(pid, signal.SIGKILL)


def _obey(order: dict[str, Any]) -> Ending:
    if "resume" in order:
        os.kill(order["resume"], signal.SIGCONT)
        return _await(order["resume"])
    pid = os.fork()
    if pid == 0:
        _be_the_victim(Order(**order))
    return _await(pid)


def _await(pid: int) -> Ending:
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return Ending(pid, frozen=os.WSTOPSIG(status))
    if os.WIFSIGNALED(status):
        return Ending(pid, killed=os.WTERMSIG(status))
    return Ending(pid, exited=os.WEXITSTATUS(status))


def _be_the_victim(order: Order) -> None:
    code = CRASHED
    try:
        code = _write(order)
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def _write(order: Order) -> int:
    number = signal.Signals[order.signal]

    def stop() -> None:
        os.kill(os.getpid(), number)

    store = open_store(order.url)
    if order.lines:
        sys.settrace(_line_counter(order.at, stop))
    else:
        store = SteppingStore(store, order.at, stop)
    try:
        CALLS[order.call](store, order.name)
    except FerryError as error:
        return int(exit_code(error))
    return 0


def _line_counter(at: int, act: Callable[[], None]) -> Callable[[FrameType, str, object], Any]:
    left = at

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != folder.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                act()
        return trace

    return trace


if __name__ == "__main__":
    main()
