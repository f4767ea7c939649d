"""From the inputs of a request to its answer: run, write, count; at once where the run is, awaited else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Generic, TypeVar

from grpc_server.call import Call
from grpc_server.datatypes import Array
from grpc_server.errors import DeadlineExceededError, OverloadedError
from grpc_server.execution.executor import Executor
from grpc_server.execution.job import Ran
from grpc_server.offering import Offering

_Reply = TypeVar("_Reply")


@dataclass(slots=True)
class Asked(Generic[_Reply]):
    """A request that has been read.

    Args:
        offering: the version that answers.
        feeds: its inputs.
        names: the outputs it wants.
        write: makes the reply from the outputs.
        began: when it was taken up, in nanoseconds of `perf_counter_ns`.
    """

    offering: Offering
    feeds: dict[str, Array]
    names: Sequence[str]
    write: Callable[[dict[str, Array]], _Reply]
    began: int


def answer(executor: Executor, asked: Asked[_Reply], call: Call) -> _Reply | Awaitable[_Reply]:
    """The reply, or what to await for it.

    Raises:
        RequestError: there is none; it is counted. What is awaited raises the same.
    """
    decoded = perf_counter_ns()
    offering = asked.offering
    try:
        ran = executor.run(offering, asked.feeds, asked.names, call)
        if isinstance(ran, Ran):
            return _replied(asked, decoded, ran, call)
    except BaseException as error:
        count_failure(offering, asked.began, error)
        raise
    return _later(asked, decoded, ran, call)


async def _later(asked: Asked[_Reply], decoded: int, coming: Awaitable[Ran], call: Call) -> _Reply:
    try:
        return _replied(asked, decoded, await coming, call)
    except BaseException as error:
        count_failure(asked.offering, asked.began, error)
        raise


def _replied(asked: Asked[_Reply], decoded: int, ran: Ran, call: Call) -> _Reply:
    offering = asked.offering
    reply = asked.write(ran.results)
    call.answered_by(offering.provenance)
    offering.counters.answered(
        offering.rows(asked.feeds), asked.began, decoded, ran.began, ran.ended, perf_counter_ns()
    )
    return reply


def count_failure(offering: Offering, began: int, error: BaseException) -> None:
    """Count a request that got no answer, under its reason where that is about load or time."""
    counters = offering.counters
    counters.failed(began, perf_counter_ns())
    if isinstance(error, OverloadedError):
        counters.overloaded += 1
    elif isinstance(error, DeadlineExceededError):
        counters.expired += 1
    elif not isinstance(error, Exception):  # the caller left, and asyncio says so
        counters.cancelled += 1
