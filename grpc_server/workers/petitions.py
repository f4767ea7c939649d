"""What workers ask their supervisor because a caller wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ferryline.grpc_server.call import Unbounded
from ferryline.grpc_server.control import ModelControl
from ferryline.grpc_server.errors import InvalidRequestError, RequestError
from ferryline.grpc_server.workers.crew import Crew, Member
from ferryline.grpc_server.workers.messages import (
    Answered,
    Counts,
    Load,
    Summed,
    ToSupervisor,
    Totals,
    Unload,
    Unloaded,
    Withdrawn,
)

log = structlog.get_logger(__name__)


class _Limited(Unbounded):
    """A call that a worker answers, as far as a load must know of it."""

    def __init__(self, seconds: float | None) -> None:
        self._ends = None if seconds is None else asyncio.get_running_loop().time() + seconds

    def seconds_left(self) -> float | None:
        return None if self._ends is None else self._ends - asyncio.get_running_loop().time()


class Petitions:
    """Answers them, each in a task of its own.

    Args:
        crew: the workers.
        control: who decides which models are served.
        counts: asks all workers what they have counted, and gives the sums.
    """

    def __init__(self, crew: Crew, control: ModelControl, counts: Callable[[], Awaitable[Counts]]) -> None:
        self._crew = crew
        self._control = control
        self._counts = counts
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}

    def hear(self, worker: Member, message: ToSupervisor) -> None:
        """A worker asks, or its caller is gone."""
        match message:
            case Totals(request=number):
                self._begin(worker, number, self._sum(worker, number))
            case Load(request=number, name=name, seconds=seconds):
                done = self._control.load(name, _Limited(seconds))
                self._begin(worker, number, self._change(worker, number, done))
            case Unload(request=number, name=name):
                self._begin(worker, number, self._change(worker, number, self._control.unload(name)))
            case Withdrawn(request=number):
                if task := self._tasks.get((worker.number, number)):
                    task.cancel()
            case _:
                pass

    def gone(self, worker: Member) -> None:
        """Nobody waits for its answers any more."""
        for (number, _), task in list(self._tasks.items()):
            if number == worker.number:
                task.cancel()

    def _begin(self, worker: Member, number: int, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[worker.number, number] = task
        task.add_done_callback(lambda _: self._tasks.pop((worker.number, number), None))

    async def _sum(self, worker: Member, number: int) -> None:
        worker.link.send(Summed(request=number, counts=await self._counts()))

    async def _change(self, worker: Member, number: int, change: Awaitable[None]) -> None:
        try:
            await change
        except RequestError as error:
            worker.link.send(Answered(request=number, error=type(error).__name__, text=str(error)))
        except Exception:
            log.exception("unexpected fault while models were changed")
            text = "the server failed to do it; its log has more"
            worker.link.send(Answered(request=number, error=InvalidRequestError.__name__, text=text))
        else:
            self._crew.tell(Unloaded(names=tuple(sorted(self._control.unloaded))))
            worker.link.send(Answered(request=number))
