"""From the inputs of a request to its answer: run, write, count; at once where the run is, awaited else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter_ns
from typing import TypeVar

from ferryline.grpc_server.call import Call
from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.errors import DeadlineExceededError, NotReadyError, OverloadedError
from ferryline.grpc_server.execution.executor import Executor, too_late
from ferryline.grpc_server.execution.job import Ran
from ferryline.grpc_server.execution.running import run_one
from ferryline.grpc_server.offering import Offering
from ferryline.grpc_server.shadowing.sampling import Sample

_Reply = TypeVar("_Reply")


def answer(
    executor: Executor,
    offering: Offering,
    feeds: dict[str, Array],
    names: Sequence[str],
    write: Callable[[dict[str, Array]], _Reply],
    call: Call,
    began: int,
    sample: Sample | None = None,
) -> _Reply | Awaitable[_Reply]:
    """The reply to a request that has been read, or what to await for it.

    Args:
        executor: says where the model runs.
        offering: the version that answers.
        feeds: the request's inputs.
        names: the outputs it wants.
        write: makes the reply from the outputs.
        call: says how long the caller waits, and hears where the answer comes from.
        began: when the request was taken up, in nanoseconds of `perf_counter_ns`.
        sample: is given the answer, to be compared with a shadow's; None for most.

    Raises:
        RequestError: there is no answer; it is counted. What is awaited raises the same.
    """
    decoded = perf_counter_ns()
    try:
        left = call.seconds_left()
        if left is not None and left <= 0:
            raise too_late(offering)  # noqa: TRY301 - failures are counted in one place
        rows = offering.rows(feeds)
        weight = rows if offering.even_rows else offering.weight(feeds, rows)
        if not executor.runs_at_once(offering, weight):
            waiting = executor.wait(offering, feeds, names, rows, left)
            return _later(waiting, offering, rows, write, call, (began, decoded), sample)
        results = run_one(offering, feeds, names)
        ran = perf_counter_ns()
        reply = write(results)
    except BaseException as error:
        _count_fault(offering, error)
        count_failure(offering, began, error)
        raise
    call.answered_by(offering.provenance)
    counters = offering.counters
    counters.runs += 1
    counters.answered(rows, began, decoded, decoded, ran, perf_counter_ns())
    offering.costs.saw(weight, ran - decoded)
    if sample is not None:
        sample.answered(results, ran - decoded)
    return reply


async def _later(
    waiting: Awaitable[Ran],
    offering: Offering,
    rows: int,
    write: Callable[[dict[str, Array]], _Reply],
    call: Call,
    moments: tuple[int, int],
    sample: Sample | None,
) -> _Reply:
    began, decoded = moments
    try:
        ran = await waiting
        reply = write(ran.results)
    except BaseException as error:
        _count_fault(offering, error)
        count_failure(offering, began, error)
        raise
    call.answered_by(offering.provenance)
    offering.counters.answered(rows, began, decoded, ran.began, ran.ended, perf_counter_ns())
    if sample is not None:
        sample.answered(ran.results, ran.ended - ran.began)
    return reply


def _count_fault(offering: Offering, error: BaseException) -> None:
    """Count a request that fits the contract and on which the model could not be run all the same."""
    no_fault = (OverloadedError, DeadlineExceededError, NotReadyError)
    if isinstance(error, Exception) and not isinstance(error, no_fault):
        offering.counters.faults += 1


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
