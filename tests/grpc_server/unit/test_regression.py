"""When a new version does worse than the one before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.grpc_server.regression import Outcome, Tally, TrialPolicy, judge

POLICY = TrialPolicy()
MS = 1_000_000

counts = st.integers(0, 5000)
tallies = st.builds(Tally, answered=counts, faults=counts, run_ns=st.integers(0, 10**13))
seconds = st.floats(0, 200)
policies = st.builds(
    TrialPolicy,
    requests=st.integers(1, 3000),
    seconds=st.floats(0.1, 100),
    least_requests=st.integers(1, 100),
    least_faults=st.integers(1, 50),
    fault_rise=st.floats(0, 1),
    run_factor=st.floats(1, 10),
    least_rise_ns=st.floats(0, 1e8),
)


def good(requests: int, ms: float = 1.0) -> Tally:
    return Tally(requests, 0, int(requests * ms * MS))


@pytest.mark.parametrize(
    ("before", "after", "passed", "outcome", "words"),
    [
        (good(1000), good(0), 0.0, Outcome.GOES_ON, ""),
        (good(1000), good(999), 59.9, Outcome.GOES_ON, ""),
        (good(1000), good(1000), 1.0, Outcome.PASSED, ""),
        (good(1000), good(0), 60.0, Outcome.PASSED, ""),
        (good(1000), Tally(40, 20, 40 * MS), 1.0, Outcome.REGRESSED, "33.3% of 60 requests"),
        (good(1000), Tally(0, 60, 0), 1.0, Outcome.REGRESSED, "100.0% of 60 requests"),
        (good(1000), Tally(0, 49, 0), 1.0, Outcome.GOES_ON, ""),
        (good(1000), Tally(60, 9, 60 * MS), 1.0, Outcome.GOES_ON, ""),
        (good(49), Tally(0, 600, 0), 1.0, Outcome.GOES_ON, ""),
        (Tally(500, 500, 500 * MS), Tally(500, 500, 500 * MS), 1.0, Outcome.PASSED, ""),
        (good(1000, 2), good(50, 6.1), 1.0, Outcome.REGRESSED, "takes 6.1 ms over 50 requests"),
        (good(1000, 2), good(50, 5.9), 1.0, Outcome.GOES_ON, ""),
        (good(1000, 2), good(49, 60), 1.0, Outcome.GOES_ON, ""),
        (good(1000, 0.01), good(999, 0.9), 1.0, Outcome.GOES_ON, ""),
        (good(1000, 0.01), good(999, 1.1), 1.0, Outcome.REGRESSED, "the version before 0.01 ms"),
    ],
)
def test_cases(before: Tally, after: Tally, passed: float, outcome: Outcome, words: str) -> None:
    verdict = judge(before, after, passed, POLICY)
    assert verdict.outcome is outcome
    assert words in verdict.reason
    assert bool(verdict.reason) == (outcome is Outcome.REGRESSED)


@given(tally=tallies, seconds=seconds, policy=policies)
def test_a_version_that_does_as_well_never_regresses(
    tally: Tally, seconds: float, policy: TrialPolicy
) -> None:
    policy = replace(policy, least_rise_ns=max(policy.least_rise_ns, 1.0))
    assert judge(tally, tally, seconds, policy).outcome is not Outcome.REGRESSED


@given(before=tallies, after=tallies, seconds=seconds, policy=policies)
def test_few_requests_of_either_tell_nothing(
    before: Tally, after: Tally, seconds: float, policy: TrialPolicy
) -> None:
    if min(before.requests, after.requests) < policy.least_requests:
        assert judge(before, after, seconds, policy).outcome is not Outcome.REGRESSED


@given(before=tallies, after=tallies, seconds=seconds, policy=policies, more=counts)
def test_more_faults_or_longer_runs_never_help(
    before: Tally, after: Tally, seconds: float, policy: TrialPolicy, more: int
) -> None:
    if judge(before, after, seconds, policy).outcome is Outcome.REGRESSED:
        for worse in (replace(after, faults=after.faults + more), replace(after, run_ns=after.run_ns + more)):
            assert judge(before, worse, seconds, policy).outcome is Outcome.REGRESSED


@given(before=tallies, after=tallies, seconds=seconds, policy=policies)
def test_every_trial_ends_in_time(before: Tally, after: Tally, seconds: float, policy: TrialPolicy) -> None:
    over = seconds >= policy.seconds or after.requests >= policy.requests
    assert (judge(before, after, seconds, policy).outcome is Outcome.GOES_ON) <= (not over)


def test_what_was_counted_earlier_is_taken_off() -> None:
    assert Tally(10, 5, 700).since(Tally(4, 5, 200)) == Tally(6, 0, 500)
