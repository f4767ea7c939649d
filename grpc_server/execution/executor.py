"""The machinery around the rules: where a request runs, who waits, and what becomes of those who leave.

Everything here happens on the event loop; threads run models and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.errors import DeadlineExceededError, NotReadyError, OverloadedError
from ferryline.grpc_server.execution.job import Job, Ran, group_of
from ferryline.grpc_server.execution.line import Line
from ferryline.grpc_server.execution.policy import UNBATCHED, BatchPolicy, ExecutionPolicy, retry_after
from ferryline.grpc_server.execution.running import Performed, perform
from ferryline.grpc_server.offering import Offering
from ferryline.model_runtime.session import RunStop

PACE_WEIGHT = 0.25
CLOSED = "the server is stopping and runs no more models; ask another one"


class Executor:
    """Runs models for requests.

    A run that is expected to be short is done at once on the event loop. What may be long, and requests that
    wait for others, stand in a line for each model; models take turns at the threads.

    Args:
        policy: what operators decided.
    """

    def __init__(self, policy: ExecutionPolicy) -> None:
        self._policy = policy
        self._inline_ns = policy.inline_ns
        self._batching: Mapping[str, BatchPolicy] = policy.batching
        self._threads = ThreadPoolExecutor(policy.threads, thread_name_prefix="run")
        self._free = policy.threads
        self._lines: dict[str, Line[Job]] = {}
        self._running: set[Job] = set()
        self._waiting_size = 0
        self._pace: dict[str, float] = {}
        self._turn_is_coming = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def batching_of(self, model: str) -> BatchPolicy | None:
        """How requests of a model run together; None where they do not."""
        return self._batching.get(model)

    def waiting(self, model: str) -> int:
        """How many requests of a model wait."""
        line = self._lines.get(model)
        return 0 if line is None else line.count

    def runs_at_once(self, offering: Offering, weight: int) -> bool:
        """Whether the caller is to run the model here and now, since that is done sooner than handed on."""
        return offering.costs.expected(weight) < self._inline_ns and offering.name not in self._batching

    def close(self) -> None:
        """Run nothing more: those who wait are told, and runs under way end early."""
        self._closed = True
        for line in list(self._lines.values()):
            for job in list(line):
                self._give_up(job, NotReadyError(CLOSED))
        for job in self._running:
            _stop(job)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- those who wait ---------------------------------------------------------------------------

    def wait(
        self, offering: Offering, feeds: dict[str, Array], names: Sequence[str], rows: int, left: float | None
    ) -> asyncio.Future[Ran]:
        """Let a request wait for its turn; what is given back is to be awaited for its outputs.

        Args:
            offering: the version that the request took.
            feeds: its inputs.
            names: the outputs it wants.
            rows: its rows.
            left: seconds until nobody wants the answer any more, None for never.

        Raises:
            OverloadedError: too many wait.
            NotReadyError: the server is stopping. What is awaited raises that, too, and `InvalidRequestError`
                where the model cannot be run on these inputs, and `DeadlineExceededError`.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = None if left is None else now + left
        job = Job(offering, feeds, names, rows, now, deadline, loop.create_future())
        self._admit(job)
        if offering.name in self._batching:
            job.group = group_of(job)
        line = self._lines.get(offering.name)
        if line is None:
            line = self._lines[offering.name] = Line(self._batching.get(offering.name, UNBATCHED))
        line.add(job)
        self._waiting_size += job.size
        offering.counters.pending += 1
        job.answer.add_done_callback(partial(self._left, job))
        if deadline is not None:
            job.timer = loop.call_at(deadline, self._expire, job)
        self._take_turns_soon()
        return job.answer

    def _admit(self, job: Job) -> None:
        if self._closed:
            raise NotReadyError(CLOSED)
        name = job.offering.name
        waiting = self.waiting(name)
        if not self._policy.limits.admit(job.size, waiting=waiting, waiting_size=self._waiting_size):
            seconds = retry_after(waiting, self._pace.get(name, 0.0))
            raise OverloadedError(
                f"model {name!r} is overloaded: {waiting} requests wait; try again in {seconds:.2g} s",
                seconds,
            )

    def _leave(self, job: Job) -> bool:
        """Take a job out of its line; False where it is not there any more."""
        line = self._lines.get(job.offering.name)
        if line is None or job not in line:
            return False
        line.remove(job)
        if not line.count:
            del self._lines[job.offering.name]
        self._waiting_size -= job.size
        job.offering.counters.pending -= 1
        if job.timer is not None:
            job.timer.cancel()
        return True

    def _left(self, job: Job, answer: asyncio.Future[Ran]) -> None:
        """The answer is decided; by the caller's leaving, if it was cancelled."""
        if not answer.cancelled():
            answer.exception()  # seen, should the caller have left just now; else asyncio writes of it
        elif not self._leave(job):
            _stop(job)

    def _expire(self, job: Job) -> None:
        self._give_up(job, too_late(job.offering))

    def _give_up(self, job: Job, error: Exception) -> None:
        if self._leave(job) and not job.answer.done():
            job.answer.set_exception(error)

    # --- who runs next ----------------------------------------------------------------------------

    def _take_turns_soon(self) -> None:
        # not at once: what else arrives in this round of the loop can come along
        if not self._turn_is_coming:
            self._turn_is_coming = True
            asyncio.get_running_loop().call_soon(self._take_turns)

    def _take_turns(self) -> None:
        self._turn_is_coming = False
        now = asyncio.get_running_loop().time()
        while due := self._next_batch(now):
            batch = self._taken(due, now)
            if not batch:
                continue
            if self._is_short(batch):
                self._finish(batch, perform(batch))
                self._take_turns_soon()  # the loop has other work, too
                return
            self._run_on_thread(batch)
        self._wake_when_due(now)

    def _next_batch(self, now: float) -> list[Job]:
        for line in list(self._lines.values()):
            batch = line.next_batch(now)
            if batch and (self._free or self._is_short(batch)):
                return batch
        return []

    def _taken(self, due: Sequence[Job], now: float) -> list[Job]:
        """Out of their line, and without those whose answer nobody waits for."""
        for job in due:
            if job.deadline is not None and job.deadline <= now:
                self._expire(job)
            self._leave(job)
        model = due[0].offering.name
        if (line := self._lines.pop(model, None)) is not None:
            self._lines[model] = line  # behind the other models
        return [job for job in due if not job.answer.done()]

    def _is_short(self, batch: Sequence[Job]) -> bool:
        weight = sum(job.weight for job in batch)
        return batch[0].offering.costs.expected(weight) < self._inline_ns

    def _wake_when_due(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # what is due already waits for a thread, and the end of a run brings the next turn
        coming = [due for line in self._lines.values() if (due := line.due_at()) is not None and due > now]
        if coming:
            self._timer = asyncio.get_running_loop().call_at(min(coming), self._take_turns_soon)

    # --- running ----------------------------------------------------------------------------------

    def _run_on_thread(self, batch: Sequence[Job]) -> None:
        stop = RunStop(callers=len(batch))
        for job in batch:
            job.stop = stop
        self._free -= 1
        self._running.update(batch)
        run = asyncio.get_running_loop().run_in_executor(self._threads, perform, batch)
        run.add_done_callback(partial(self._run_ended, batch))

    def _run_ended(self, batch: Sequence[Job], run: asyncio.Future[Performed]) -> None:
        self._free += 1
        self._running.difference_update(batch)
        if not run.cancelled():
            performed = run.result()
            self._learn_pace(batch, performed)
            self._finish(batch, performed)
        if not self._closed:
            self._take_turns_soon()

    def _learn_pace(self, batch: Sequence[Job], performed: Performed) -> None:
        name = batch[0].offering.name
        each = (performed.ended - performed.began) / 1e9 / len(batch) / self._policy.threads
        self._pace[name] = each + (1 - PACE_WEIGHT) * (self._pace.get(name, each) - each)

    def _finish(self, batch: Sequence[Job], performed: Performed) -> None:
        offering = batch[0].offering
        offering.counters.runs += performed.runs
        if performed.runs == 1 and not isinstance(performed.outcomes[0], Exception):
            offering.costs.saw(sum(job.weight for job in batch), performed.cpu_ns)
        for job, outcome in zip(batch, performed.outcomes, strict=True):
            if job.answer.done():
                continue
            if isinstance(outcome, Exception):
                job.answer.set_exception(outcome)
            else:
                job.answer.set_result(Ran(outcome, performed.began, performed.ended))


def _stop(job: Job) -> None:
    if job.stop is not None:
        job.stop.leave()


def too_late(offering: Offering) -> DeadlineExceededError:
    """What a caller is told who waits no more, should he hear it."""
    return DeadlineExceededError(
        f"the deadline passed before model {offering.name!r} was run; it was not run for this request"
    )
