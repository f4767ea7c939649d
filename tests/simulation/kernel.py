"""Programs in virtual time: one runs at a time, in an order that a history gives, and none knows of it.

A task is a greenlet that stands still except while the kernel lets it run. It gives way where it sleeps,
waits for an event or is suspended, and nowhere else, so a history happens in the same order each time.
Threads would do as well, and take ten times as long on a busy machine.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from greenlet import getcurrent, greenlet

START = datetime(2026, 1, 1, tzinfo=UTC)
FOREVER = float("inf")


class Killed(BaseException):
    """The process ends here, as by SIGKILL."""


class Process:
    """A program on a machine: what all its tasks share.

    Args:
        kernel: gives it time.
        name: what it is called in scripts and violations.
        host: its machine's name.
        pid: its process id there.
        skew: seconds by which its machine's clock is ahead.
    """

    def __init__(
        self, kernel: Kernel, name: str, *, host: str = "host", pid: int = 1, skew: float = 0.0
    ) -> None:
        self.kernel = kernel
        self.name = name
        self.host = host
        self.pid = pid
        self.skew = skew
        self.dead = False
        self.died_at = FOREVER
        self.suspended_until = 0.0
        self.last_suspended = -FOREVER

    def wall_clock(self) -> datetime:
        """The time of its machine's clock."""
        return START + timedelta(seconds=self.kernel.seconds + self.skew)

    def monotonic(self) -> float:
        """Seconds that only rise."""
        return self.kernel.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.kernel.sleep(max(0.0, seconds))

    def suspend(self, seconds: float) -> None:
        """Stop all its tasks for a while, as by SIGSTOP."""
        self.suspended_until = max(self.suspended_until, self.kernel.seconds + seconds)
        self.last_suspended = self.suspended_until

    def kill(self) -> None:
        """End all its tasks where they stand."""
        if not self.dead:
            self.dead, self.died_at = True, self.kernel.seconds
        self.kernel.reap(self)


class Task:
    """One thread of a process, which is none."""

    def __init__(self, process: Process, job: Callable[[], object]) -> None:
        self.process = process
        self.due = 0
        self.ended = False
        self.error: BaseException | None = None
        self.when_ended: list[Event] = []
        self._job = job
        self._greenlet = greenlet(self._run)

    def go_on(self) -> None:
        """Run until it gives way or ends; called by the kernel."""
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()

    def give_way(self) -> None:
        """Stand still until the kernel goes on; called by the task."""
        parent = self._greenlet.parent
        if parent is not None:
            parent.switch()

    def _run(self) -> None:
        try:
            if not self.process.dead:
                self._job()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the kernel
            self.error = error
        self.ended = True


class Kernel:
    """Virtual time, and whose turn it is."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.current: Task | None = None
        self._numbers = itertools.count(1)
        self._queue: list[tuple[float, int, Task | Callable[[], None]]] = []
        self._tasks: list[Task] = []

    @property
    def process(self) -> Process | None:
        """The process that runs now, None outside any."""
        return self.current.process if self.current is not None else None

    # --- for the director ---------------------------------------------------------------------------

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something, which is no task, at a moment."""
        heapq.heappush(self._queue, (seconds, next(self._numbers), call))

    def spawn(self, process: Process, job: Callable[[], object]) -> Task:
        """Begin a task of `process`, now."""
        task = Task(process, job)
        self._tasks.append(task)
        self._wake_at(task, self.seconds)
        return task

    def run_until(self, seconds: float) -> None:
        """Let everything happen that is due by then."""
        while self._queue and self._queue[0][0] <= seconds:
            when, number, due = heapq.heappop(self._queue)
            self.seconds = max(self.seconds, when)
            if not isinstance(due, Task):
                due()
            elif not due.ended and due.due == number:
                self._resume(due)
        self.seconds = max(self.seconds, seconds)

    def reap(self, process: Process) -> None:
        """End the tasks of a dead process, but for the one that runs."""
        for task in [each for each in self._tasks if each.process is process and each is not self.current]:
            self._end(task)

    def wake_all(self) -> None:
        """Let every task that sleeps for a time go on at once."""
        sleeping = {due for _, _, due in self._queue if isinstance(due, Task)}
        for task in [each for each in self._tasks if each in sleeping]:
            if self._wakes_at(task) < FOREVER:
                self.wake(task)

    def _wakes_at(self, task: Task) -> float:
        return next(
            (when for when, number, due in self._queue if due is task and number == task.due), FOREVER
        )

    def end(self) -> None:
        """End every task where it stands."""
        for task in self._tasks:
            task.process.dead = True
        while self._tasks:
            self._end(self._tasks[-1])

    def _end(self, task: Task) -> None:
        running = self.current
        while not task.ended:
            self._resume(task)
        self.current = running

    def _resume(self, task: Task) -> None:
        self.current = task
        task.go_on()
        self.current = None
        if not task.ended:
            return
        self._tasks.remove(task)
        for event in task.when_ended:
            event.set()
        if task.error is not None:
            raise task.error

    # --- for tasks ----------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Let the task that runs stand still for so long; outside any task, time does not pass."""
        task = self.current
        if task is None:
            return
        process = task.process
        until = self.seconds + seconds
        while True:
            if process.dead:
                raise Killed
            self._wake_at(task, max(until, process.suspended_until))
            task.give_way()
            if process.dead:
                raise Killed
            if self.seconds >= process.suspended_until:
                return

    def wake(self, task: Task) -> None:
        """Let a sleeping task go on at once."""
        self._wake_at(task, self.seconds)

    def _wake_at(self, task: Task, seconds: float) -> None:
        task.due = next(self._numbers)
        heapq.heappush(self._queue, (seconds, task.due, task))


class Event:
    """Stands for `threading.Event` in a simulated process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._is_set = False
        self._waiting: list[Task] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for task in self._waiting:
            self._kernel.wake(task)
        self._waiting.clear()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        task = self._kernel.current
        if not self._is_set and task is not None:
            self._waiting.append(task)
            self._kernel.sleep(FOREVER if timeout is None else max(0.0, timeout))
            if task in self._waiting:
                self._waiting.remove(task)
        return self._is_set


class Thread:
    """Stands for `threading.Thread` in a simulated process."""

    def __init__(
        self, kernel: Kernel, *, target: Callable[[], object], name: str = "", daemon: bool = True
    ) -> None:
        self._kernel = kernel
        self._target = target
        self._task: Task | None = None
        self._ended = Event(kernel)
        self.name = name
        self.daemon = daemon
        self.ident: int | None = None

    def start(self) -> None:
        process = self._kernel.process
        if process is None:
            raise RuntimeError("a thread is started by a process")
        self._task = self._kernel.spawn(process, self._target)
        self._task.when_ended.append(self._ended)
        self.ident = 1

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.ended

    def join(self, timeout: float | None = None) -> None:
        if self.is_alive():
            self._ended.wait(timeout)
