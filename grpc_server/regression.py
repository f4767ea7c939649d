"""When a new version does worse than the one before: rules alone, of what was counted.

A version is on trial for its first requests or seconds, whichever are over first. It has regressed if it
cannot be run on a larger share of the requests by far, or if its runs take longer by far; both versions must
have had requests enough to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one version.

    Args:
        answered: requests answered.
        faults: requests that fit the contract and on which the model could not be run.
        run_ns: nanoseconds of the runs of those that were answered.
    """

    answered: int
    faults: int
    run_ns: int

    @property
    def requests(self) -> int:
        """Requests on which the model was run, or was to be."""
        return self.answered + self.faults

    @property
    def fault_share(self) -> float:
        """The share of faults, from 0 to 1; 0 without requests."""
        return self.faults / self.requests if self.requests else 0.0

    @property
    def mean_ns(self) -> float:
        """Nanoseconds of a run; 0 without answers."""
        return self.run_ns / self.answered if self.answered else 0.0

    def since(self, earlier: Tally) -> Tally:
        """What was counted after `earlier` was."""
        return Tally(
            self.answered - earlier.answered, self.faults - earlier.faults, self.run_ns - earlier.run_ns
        )


@dataclass(frozen=True, slots=True)
class TrialPolicy:
    """How long a trial is and what ends it badly.

    Args:
        requests: the trial's length in requests.
        seconds: its length in seconds.
        least_requests: fewer of either version tell nothing.
        least_faults: fewer tell nothing.
        fault_rise: so much larger the share of faults may be, from 0 to 1.
        run_factor: so many times longer a run may take.
        least_rise_ns: a run that takes fewer nanoseconds more is no matter, whatever the factor.
    """

    requests: int = 1000
    seconds: float = 60.0
    least_requests: int = 50
    least_faults: int = 10
    fault_rise: float = 0.1
    run_factor: float = 3.0
    least_rise_ns: float = NS_PER_MS


class Outcome(Enum):
    """How a trial stands."""

    GOES_ON = auto()
    PASSED = auto()
    REGRESSED = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a trial stands, and in words why it ended badly."""

    outcome: Outcome
    reason: str = ""


def judge(before: Tally, after: Tally, seconds: float, policy: TrialPolicy) -> Verdict:
    """How the trial of a version stands.

    Args:
        before: all that was counted of the version before.
        after: what was counted of this one since it serves.
        seconds: how long it has served.
        policy: what counts as a regression.
    """
    reason = _more_faults(before, after, policy) or _longer_runs(before, after, policy)
    if reason:
        return Verdict(Outcome.REGRESSED, reason)
    over = after.requests >= policy.requests or seconds >= policy.seconds
    return Verdict(Outcome.PASSED if over else Outcome.GOES_ON)


def _more_faults(before: Tally, after: Tally, policy: TrialPolicy) -> str:
    if min(before.requests, after.requests) < policy.least_requests or after.faults < policy.least_faults:
        return ""
    if after.fault_share - before.fault_share <= policy.fault_rise:
        return ""
    return (
        f"it could not be run on {after.fault_share:.1%} of {after.requests} requests, "
        f"the version before on {before.fault_share:.1%}"
    )


def _longer_runs(before: Tally, after: Tally, policy: TrialPolicy) -> str:
    if min(before.answered, after.answered) < policy.least_requests:
        return ""
    rise = after.mean_ns - before.mean_ns
    if rise < policy.least_rise_ns or after.mean_ns <= before.mean_ns * policy.run_factor:
        return ""
    return (
        f"a run takes {after.mean_ns / NS_PER_MS:.3g} ms over {after.answered} requests, "
        f"of the version before {before.mean_ns / NS_PER_MS:.3g} ms"
    )
