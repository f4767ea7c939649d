"""What is told of shadows beside the metrics: a log line for each pair and minute, and in readiness."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from ferryline.grpc_server.shadowing.counters import PairCounters
from ferryline.grpc_server.shadowing.sampling import Shadow

INTERVAL = 60.0
"""Seconds between two lines about the same pair of versions."""

_COUNTED = ("compared", "labels", "agreed", "failed", "dropped")

log = structlog.get_logger(__name__)


class MinuteLog:
    """Writes what was compared since the last time; used by the worker's thread alone.

    Args:
        shadows: of which shadows.
        clock: seconds that only rise.
    """

    def __init__(self, shadows: Sequence[Shadow], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shadows = shadows
        self._clock = clock
        self._next = clock() + INTERVAL
        self._told: dict[tuple[str, int, int], dict[str, int]] = {}

    def tell_if_due(self) -> None:
        """Write, once a minute."""
        if self._clock() >= self._next:
            self._next = self._clock() + INTERVAL
            self.tell()

    def tell(self) -> None:
        """Write a line for each pair of which something is new."""
        told: dict[tuple[str, int, int], dict[str, int]] = {}
        for shadow in self._shadows:
            for versions, pair in shadow.pairs.items():
                key = (str(shadow.policy), *versions)
                told[key] = _counts(pair)
                self._tell_of(shadow, pair, told[key], self._told.get(key))
        self._told = told

    def _tell_of(
        self, shadow: Shadow, pair: PairCounters, now: dict[str, int], before: dict[str, int] | None
    ) -> None:
        names = {"shadow": str(shadow.policy), "version": pair.version, "shadow_version": pair.shadow_version}
        if pair.broken is not None:
            if before is None:
                log.warning("a shadow cannot be compared", **names, reason=pair.broken)
            return
        lately = {name: now[name] - (before or {}).get(name, 0) for name in _COUNTED}
        if any(lately.values()):
            log.info("shadow compared", **names, **lately, largest_difference=_largest_lately(pair))


def shadow_readiness(shadows: Iterable[Shadow]) -> dict[str, Any]:
    """For each shadow which versions are compared right now and what came of it, as JSON."""
    return {str(shadow.policy): _of_shadow(shadow) for shadow in shadows}


def _of_shadow(shadow: Shadow) -> dict[str, Any]:
    report = shadow.channel.follower.report()
    pairs = [pair for pair in shadow.pairs.values() if pair.shadow_version == report.version]
    return {
        "share": shadow.policy.share,
        "phase": report.phase,
        "version": report.version,
        "generation": report.generation,
        "waiting": len(shadow.backlog),
        "last_error": report.last_error,
        "pairs": [_of_pair(pair) for pair in pairs],
    }


def _of_pair(pair: PairCounters) -> dict[str, Any]:
    differences = [output.largest for output in list(pair.outputs.values())]
    return {
        "version": pair.version,
        "shadow_version": pair.shadow_version,
        **_counts(pair),
        "largest_difference": max(differences, default=None),
        "not_comparable": pair.broken,
    }


def _counts(pair: PairCounters) -> dict[str, int]:
    outputs = list(pair.outputs.values())
    return {
        "compared": pair.compared,
        "labels": sum(output.labels for output in outputs),
        "agreed": sum(output.agreed for output in outputs),
        "failed": sum(pair.failed.values()),
        "dropped": pair.dropped,
    }


def _largest_lately(pair: PairCounters) -> float:
    largest = max((output.largest_lately for output in pair.outputs.values()), default=0.0)
    for output in pair.outputs.values():
        output.largest_lately = 0.0
    return largest
