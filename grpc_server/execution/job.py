"""One request on its way through execution."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ferryline.grpc_server.datatypes import Array, held_bytes
from ferryline.grpc_server.offering import Offering
from ferryline.model_runtime.session import RunStop


class Ran(NamedTuple):
    """What a run gave to one request, and when it began and ended, in nanoseconds of `perf_counter_ns`."""

    results: dict[str, Array]
    began: int
    ended: int


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits or runs; it keeps the version that it took, whatever is swapped meanwhile.

    Args:
        offering: that version.
        feeds: its inputs.
        names: the outputs it wants.
        rows: its rows.
        arrived: when it came, by the loop's clock.
        deadline: when nobody will want the answer any more, by the same clock; None for never.
        answer: resolved with what the run gave; cancelled when the caller leaves.
    """

    offering: Offering
    feeds: dict[str, Array]
    names: Sequence[str]
    rows: int
    arrived: float
    deadline: float | None
    answer: asyncio.Future[Ran]
    size: int = field(init=False)
    weight: int = field(init=False)
    group: Hashable | None = None
    timer: asyncio.TimerHandle | None = None
    stop: RunStop | None = None

    def __post_init__(self) -> None:
        self.size = held_bytes(self.feeds.values())
        self.weight = self.offering.weight(self.feeds, self.rows)


def group_of(job: Job) -> Hashable | None:
    """What a request shares with those it may run together with: version, outputs and all but the rows.

    None where its rows cannot be told from others' in one run: the model's contract does not have the batch
    first everywhere, or the inputs differ in rows. Dtypes are the contract's.
    """
    offering, feeds = job.offering, job.feeds
    if not (job.rows and offering.joins(job.names)):
        return None
    if any(array.shape[0] != job.rows for array in feeds.values()):
        return None
    return (offering, tuple(job.names), *[feeds[name].shape[1:] for name in offering.inputs])
