"""Models run: one request alone, or several joined; a fault in one of them stays with that one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns, thread_time_ns

import numpy as np
import structlog

from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.errors import InvalidRequestError, NotReadyError
from ferryline.grpc_server.execution.batches import alike, joined, split
from ferryline.grpc_server.execution.job import Job
from ferryline.grpc_server.offering import Offering
from ferryline.model_runtime.session import RunStop

log = structlog.get_logger(__name__)

Outcome = dict[str, Array] | Exception


@dataclass(slots=True)
class Performed:
    """What running some requests gave.

    Attributes:
        outcomes: for each request its outputs, or why there are none.
        runs: how often the model ran.
        began: in nanoseconds of `perf_counter_ns`.
        ended: likewise.
        cpu_ns: processor time of this thread.
    """

    outcomes: Sequence[Outcome]
    runs: int
    began: int
    ended: int
    cpu_ns: int


def run_one(
    offering: Offering, feeds: dict[str, Array], names: Sequence[str], stop: RunStop | None = None
) -> dict[str, Array]:
    """Run a model for one request.

    Raises:
        InvalidRequestError: it cannot be run on these inputs.
        NotReadyError: the run was ended.
    """
    try:
        return offering.session.run(feeds, names, stop)
    except ValueError as error:
        if stop is not None and stop.ended:
            raise NotReadyError("the run was ended early, for the server is stopping") from error
        raise _unfit(offering, feeds, error) from error


def perform(jobs: Sequence[Job]) -> Performed:
    """Run requests of one group, joined where there are several. Any thread may do it."""
    began, cpu = perf_counter_ns(), thread_time_ns()
    outcomes: Sequence[Outcome]
    try:
        outcomes, runs = _alone(jobs) if len(jobs) == 1 else _together(jobs)
    except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
        outcomes, runs = [error] * len(jobs), 0
    return Performed(outcomes, runs, began, perf_counter_ns(), thread_time_ns() - cpu)


def _alone(jobs: Sequence[Job]) -> tuple[list[Outcome], int]:
    return [_outcome(job) for job in jobs], len(jobs)


def _outcome(job: Job) -> Outcome:
    try:
        return run_one(job.offering, job.feeds, job.names, job.stop)
    except Exception as error:  # noqa: BLE001 - carried to the thread that answers
        return error


def _together(jobs: Sequence[Job]) -> tuple[list[Outcome], int]:
    """One run for all; where that fails or cannot be taken apart, one run for each."""
    offering = jobs[0].offering
    try:
        results = offering.session.run(joined([job.feeds for job in jobs]), jobs[0].names, jobs[0].stop)
    except (ValueError, MemoryError):
        return _again(jobs)
    parts = split(results, [job.rows for job in jobs])
    if parts is None:
        _give_up_joining(offering, "an output has not as many rows as its inputs")
        return _again(jobs)
    if offering.joining_proven:
        return list(parts), 1
    return _proving(jobs, parts)


def _proving(jobs: Sequence[Job], parts: Sequence[dict[str, Array]]) -> tuple[list[Outcome], int]:
    """The first batch of a version is held against runs one by one: rows of some models touch each other."""
    outcomes, runs = _again(jobs)
    answered = [
        (job, part, alone)
        for job, part, alone in zip(jobs, parts, outcomes, strict=True)
        if not isinstance(alone, Exception)
    ]
    if not all(alike(part, alone) for _, part, alone in answered):
        _give_up_joining(jobs[0].offering, "rows give other outputs among others than alone")
    elif _differ([job.feeds for job, _, _ in answered]):
        jobs[0].offering.joining_proven = True
    return outcomes, runs


def _differ(feeds: Sequence[dict[str, Array]]) -> bool:
    """Whether there are different rows among them: equal ones show nothing of how rows touch each other."""
    return any(
        not np.array_equal(array[:1], feeds[0][name][:1]) for each in feeds for name, array in each.items()
    )


def _again(jobs: Sequence[Job]) -> tuple[list[Outcome], int]:
    outcomes, runs = _alone(jobs)
    return outcomes, runs + 1


def _give_up_joining(offering: Offering, reason: str) -> None:
    offering.joinable = False
    served = offering.served
    log.warning("batching is off for a version", model=served.name, version=served.version, reason=reason)


def _unfit(offering: Offering, feeds: dict[str, Array], error: ValueError) -> InvalidRequestError:
    # each input fits its contract, so they do not fit each other: free dimensions that must be equal
    fault_id = uuid.uuid4().hex[:12]
    served = offering.served
    log.warning(
        "a model could not be run",
        model=served.name,
        version=served.version,
        id=fault_id,
        reason=str(error),
    )
    shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in feeds.items())
    return InvalidRequestError(
        f"model {served.name!r} version {served.version} cannot be run on inputs of these shapes "
        f"together: {shapes}; the server's log has more under id {fault_id}"
    )
