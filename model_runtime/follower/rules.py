"""How a consumer follows a channel: a state machine without IO, clock or threads.

    following -> fetching -> verifying -> loading -> warming -> serving

- `step(state, event)` gives the next state and the one action to perform; performing it gives an event.
- A failure on the way leads back to the last good version. A transient one is tried again, later each time;
  a refused generation is not tried again, only a newer one is.
- Generations served only ever rise: a rollback is a newer generation that names an older version.
- A generation that names a version whose session is kept (the one that serves, or the one before it) is
  swapped in at once: a hold loads nothing, and a rollback by one version is instant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

FIRST_RETRY = 0.5
"""Seconds until the first retry of a transient failure."""
LAST_RETRY = 30.0
"""Seconds that the pause between retries grows to."""


class Phase(StrEnum):
    """What a follower is doing."""

    FOLLOWING = "following"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    LOADING = "loading"
    WARMING = "warming"
    SERVING = "serving"


STAGES = (Phase.FETCHING, Phase.VERIFYING, Phase.LOADING, Phase.WARMING)
"""What a candidate passes, in order, before it serves."""


@dataclass(frozen=True, slots=True)
class Target:
    """One generation of the channel: the version it names and the digest of that version's file."""

    generation: int
    version: int
    digest: str

    def same_model(self, other: Target | None) -> bool:
        """Whether both name the same version and file, under whatever generation."""
        return other is not None and (self.version, self.digest) == (other.version, other.digest)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A candidate that must not serve, the gate that said so, and why."""

    target: Target
    gate: str
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """Where a follower stands.

    `handled` is the highest generation that was served or refused; polls ask for what is newer.
    `failures` counts transient failures in a row; `last_error` is the newest of them, until one succeeds.
    """

    phase: Phase = Phase.FOLLOWING
    serving: Target | None = None
    previous: Target | None = None
    candidate: Target | None = None
    handled: int = 0
    failures: int = 0
    last_error: str | None = None
    refusal: Refusal | None = None


# --- events: what came of performing an action ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Woke:
    """A rest is over, or a refusal was recorded."""


@dataclass(frozen=True, slots=True)
class NothingNew:
    """The poll found no newer generation."""


@dataclass(frozen=True, slots=True)
class Found:
    """The poll found a newer generation; the newest one, whatever lies between."""

    target: Target


@dataclass(frozen=True, slots=True)
class Passed:
    """The stage, or the swap, was performed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong that may go right the next time."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A gate found that the candidate must not serve."""

    gate: str
    reason: str


Event = Woke | NothingNew | Found | Passed | Failed | Rejected

# --- actions: what to perform next ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Poll:
    """Look for a generation newer than `after`."""

    after: int


@dataclass(frozen=True, slots=True)
class RunStage:
    """Take the candidate through one stage."""

    stage: Phase
    target: Target


@dataclass(frozen=True, slots=True)
class Swap:
    """Let the target serve: one reference assignment. Its session is `kept` or was just warmed."""

    target: Target
    kept: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """Record a refusal where people look for it."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait: `retry` is the number of failures in a row, 0 for the usual time between polls."""

    retry: int = 0


Action = Poll | RunStage | Swap | Refuse | Rest


def step(state: State, event: Event) -> tuple[State, Action]:
    """The next state and action after `event`.

    Raises:
        ValueError: the event cannot follow from the state; a fault of the caller's.
    """
    match event:
        case Woke():
            return state, Poll(state.handled)
        case NothingNew():
            return replace(state, failures=0, last_error=None), Rest()
        case Found(target):
            return _found(state, target)
        case Passed():
            return _passed(state)
        case Failed(reason):
            failures = state.failures + 1
            return replace(_at_rest(state), failures=failures, last_error=reason), Rest(failures)
        case Rejected(gate, reason):
            return _rejected(state, gate, reason)


def _found(state: State, target: Target) -> tuple[State, Action]:
    if target.generation <= state.handled:
        return step(
            state,
            Failed(
                f"the store shows generation {target.generation} after {state.handled}: "
                "the channel went backwards"
            ),
        )
    if target.same_model(state.serving) or target.same_model(state.previous):
        return replace(state, candidate=target, phase=Phase.SERVING), Swap(target, kept=True)
    return replace(state, candidate=target, phase=Phase.FETCHING), RunStage(Phase.FETCHING, target)


def _passed(state: State) -> tuple[State, Action]:
    if state.candidate is None:
        raise ValueError(f"no candidate can have passed while {state.phase}")
    if state.phase is Phase.SERVING:  # the swap itself was performed
        return _serve(state, state.candidate)
    if state.phase is Phase.WARMING:
        return replace(state, phase=Phase.SERVING), Swap(state.candidate, kept=False)
    following = STAGES[STAGES.index(state.phase) + 1]
    return replace(state, phase=following), RunStage(following, state.candidate)


def _serve(state: State, target: Target) -> tuple[State, Action]:
    previous = state.previous if target.same_model(state.serving) else state.serving
    return State(phase=Phase.SERVING, serving=target, previous=previous, handled=target.generation), Poll(
        target.generation
    )


def _rejected(state: State, gate: str, reason: str) -> tuple[State, Action]:
    if state.candidate is None:
        raise ValueError(f"no candidate can be rejected while {state.phase}")
    refusal = Refusal(state.candidate, gate, reason)
    rested = replace(_at_rest(state), handled=refusal.target.generation, failures=0, refusal=refusal)
    return rested, Refuse(refusal)


def _at_rest(state: State) -> State:
    phase = Phase.SERVING if state.serving else Phase.FOLLOWING
    return replace(state, phase=phase, candidate=None)


def retry_pause(retry: int, fraction: float) -> float:
    """Seconds to rest before retry number `retry` (1, 2, …): exponential with full jitter.

    Args:
        retry: how many failures there were in a row.
        fraction: a random number in [0, 1); it spreads a fleet over the second half of the pause.
    """
    longest = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(retry - 1, 16))
    return longest * (0.5 + fraction / 2)
