"""Versions on trial: what is counted of a new one is held against the one before, and a bad one goes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.regression import Outcome, Tally, TrialPolicy, judge
from ferryline.model_runtime.follower import FollowerObserver
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.documents import Operation

INTERVAL = 0.25
"""Seconds between two looks at the counters."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Trial:
    served: ServedModel
    before: VersionCounters
    after: VersionCounters
    counted: Tally
    """What had been counted of it before it served: as a canary, or an earlier time."""
    began: float


class TrialJudge(FollowerObserver):
    """Judges the versions of one channel, one after the other.

    Neither a rollback is judged, which someone wanted, nor a version that a fall-back led to.

    Args:
        channel: its counters are looked at, and its follower told to fall back.
        policy: what counts as a regression.
        clock: seconds that only rise.
    """

    def __init__(
        self, channel: FollowedChannel, policy: TrialPolicy, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.channel = channel
        self._policy = policy
        self._clock = clock
        self._trial: _Trial | None = None
        channel.follower.observe(self)

    def swapped(self, served: ServedModel, seconds: float) -> None:  # noqa: ARG002 - the observer's form
        """Begin a trial, where there is something to hold the version against."""
        previous, running = self.channel.follower.previous, self._trial
        if running is not None and running.served.session is served.session:
            return  # a hold, or a canary beside it: the same version goes on
        self._trial = None
        if previous is None or served.entry.operation is Operation.ROLLBACK or self._went_back(served):
            return
        counters = self.channel.counters
        before, after = counters.of_version(previous.version), counters.of_version(served.version)
        self._trial = _Trial(served, before, after, _tally(after), self._clock())

    def look(self) -> None:
        """See how the trial stands, and fall back if it ended badly."""
        trial, current = self._trial, self.channel.follower.current
        if trial is None or current is None or current.session is not trial.served.session:
            return
        after = _tally(trial.after).since(trial.counted)
        verdict = judge(_tally(trial.before), after, self._clock() - trial.began, self._policy)
        if verdict.outcome is Outcome.GOES_ON:
            return
        self._trial = None
        log.info(
            "trial ended", model=current.name, version=current.version, outcome=verdict.outcome.name.lower()
        )
        if verdict.outcome is Outcome.REGRESSED:
            self.channel.follower.fall_back(current.generation, verdict.reason)

    def _went_back(self, served: ServedModel) -> bool:
        return served.generation < self.channel.follower.handled


async def look_regularly(judges: Callable[[], Iterable[TrialJudge]]) -> None:
    """Look at all trials every `INTERVAL` seconds, until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL)
        _look_at(judges())


def _look_at(judges: Iterable[TrialJudge]) -> None:
    # a function of its own, so that between two looks nothing holds the last of them and its sessions
    for each in judges:
        each.look()


def _tally(counters: VersionCounters) -> Tally:
    return Tally(counters.success, counters.faults, counters.run_ns)
