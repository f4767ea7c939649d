"""What each process of a race does: long-lived workers that meet at a barrier before every round."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Barrier
from typing import Protocol, TypeVar

import orjson

from ferryline.registry import Registry
from ferryline.registry.documents import Manifest
from ferryline.registry.errors import ConflictError
from ferryline.registry.stores import Store, open_store
from tests.faulty_store import Recorder
from tests.registry.histories import facts
from tests.registry.log_invariants import Attempt, Outcome
from tests.support.sizes import sized
from tests.support.waiting import DEADLINE

RACERS = sized(8, 16)
MODEL = "digits"

_T = TypeVar("_T")


class _Meeting(Protocol):
    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class Race:
    """What every racer does.

    Args:
        url: the store, which each racer opens for itself.
        rounds: how often they meet and race.
        expecting: whether they say which generation they expect, that of the round.
        environ: variables that a process needs, such as credentials.
    """

    url: str
    rounds: int
    expecting: bool = True
    environ: tuple[tuple[str, str], ...] = ()


def promote(race: Race, racer: int, store: Store, meeting: _Meeting) -> list[Attempt]:
    """Promote in every round, and tell what came of it."""
    recorder = Recorder(store)
    registry = Registry(recorder, actor=f"racer-{racer}")
    attempts: list[Attempt] = []
    for turn in range(race.rounds):
        recorder.offered.clear()
        meeting.wait(DEADLINE)
        entry = None
        try:
            entry = registry.promote(MODEL, racer % 2 + 1, expect=turn if race.expecting else None)
        except ConflictError:
            outcome = Outcome.CONFLICT
        else:
            outcome = Outcome.DONE
        op_ids = (orjson.loads(data)["op_id"] for sent in recorder.offered.values() for data in sent)
        attempts.append(Attempt(outcome, frozenset(op_ids), entry))
    return attempts


def publish(race: Race, racer: int, store: Store, meeting: _Meeting) -> list[Manifest]:
    """Publish a file of one's own in every round."""
    registry = Registry(store, actor=f"racer-{racer}")
    manifests: list[Manifest] = []
    for turn in range(race.rounds):
        meeting.wait(DEADLINE)
        manifests.append(registry.publish(MODEL, b"racer %d round %d" % (racer, turn), facts()))
    return manifests


# --- in processes ---------------------------------------------------------------------------------


class _Worker:
    """What a worker process was started with."""

    barrier: Barrier


def in_processes(job: Callable[[Race, int, Store, _Meeting], _T], race: Race) -> list[_T]:
    """What `RACERS` processes return that do `job` at the same time."""
    context = _context()
    barrier = context.Barrier(RACERS)
    with ProcessPoolExecutor(RACERS, context, initializer=_start, initargs=(barrier,)) as pool:
        return _gather(pool, [(_work, job, race, racer) for racer in range(RACERS)])


def _gather(pool: Executor, calls: Sequence[tuple[Callable[..., _T], object, Race, int]]) -> list[_T]:
    futures = [pool.submit(call, *arguments) for call, *arguments in calls]
    return [future.result() for future in futures]


def _context() -> BaseContext:
    # forked from a clean server that imported everything once: sixteen interpreters take seconds to start
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, "ferryline.registry.stores.s3"])
    return context


def _start(barrier: Barrier) -> None:
    _Worker.barrier = barrier


def _work(job: Callable[[Race, int, Store, _Meeting], _T], race: Race, racer: int) -> _T:
    os.environ.update(race.environ)
    try:
        return job(race, racer, open_store(race.url), _Worker.barrier)
    except BaseException:
        _Worker.barrier.abort()  # the others need not wait for a racer that fell
        raise
