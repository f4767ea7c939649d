"""The counters as Triton's ModelStatistics."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.models import FollowedModel
from ferryline.protos import grpc_service_pb2 as pb

_NS_PER_MS = 1_000_000

Counted = Callable[[FollowedModel], Mapping[int, VersionCounters]]
"""Gives what is counted of each version of a model."""

Totals = Callable[[], Awaitable[Counted]]
"""Asks what all processes that share this one's ports have counted."""


def statistics_of(
    model: FollowedModel, version: int | None = None, counted: Counted = FollowedModel.versions
) -> list[pb.ModelStatistics]:
    """What is counted of a model, or of one version of it, in the order of versions."""
    return [
        _described(model.name, number, counters)
        for number, counters in sorted(counted(model).items())
        if version in (None, number)
    ]


def _described(name: str, version: int, counters: VersionCounters) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=name,
        version=str(version),
        last_inference=_wall_clock_ms(counters.last_ns),
        inference_count=counters.rows,
        execution_count=counters.runs,
        inference_stats=_durations(counters),
    )


def _durations(counters: VersionCounters) -> pb.InferStatistics:
    def each(ns: int) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=counters.success, ns=ns)

    return pb.InferStatistics(
        success=each(counters.total_ns),
        fail=pb.StatisticDuration(count=counters.failure, ns=counters.failure_ns),
        queue=each(counters.queue_ns),
        compute_input=each(counters.input_ns),
        compute_infer=each(counters.run_ns),
        compute_output=each(counters.output_ns),
    )


def _wall_clock_ms(
    moment: int, *, clock: Callable[[], int] = time.perf_counter_ns, wall: Callable[[], int] = time.time_ns
) -> int:
    """A moment of `clock` in milliseconds of Unix time; 0 for never."""
    return 0 if moment == 0 else (wall() - (clock() - moment)) // _NS_PER_MS
