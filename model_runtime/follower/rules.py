"""How a consumer follows a channel: a state machine without IO, clock or threads.

    following -> fetching -> verifying -> loading -> warming -> serving

- `step(state, event)` gives the next state and the one action to perform; performing it gives an event.
- A failure on the way leads back to the last good version. A transient one is tried again, later each time;
  a refused generation is not tried again, only a newer one is.
- What is rolled back while it loads is left for what the rollback leads to.
- Generations served only ever rise: a rollback is a newer generation that names an older version. A fall-back
  is the exception: a consumer that finds that what serves does worse than what served before goes back to
  that by itself, and refuses the generation it leaves.
- A newcomer whose first candidate is refused has no last good version. It looks back along what a rollback of
  the channel would lead to, and serves the newest of that which passes, until a newer generation does. Where
  its candidate cannot be had for now, it does the same after a few tries, and goes on trying.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

FIRST_RETRY = 0.5
"""Seconds until the first retry of a transient failure."""
LAST_RETRY = 30.0
"""Seconds that the pause between retries grows to."""
TRIES_BEFORE_LOOKING_BACK = 3
"""So often a newcomer tries a candidate that fails for now, until it looks for an older one meanwhile."""
REGRESSION = "regression"
"""The gate that a consumer names where what serves does worse than what served before."""


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
    """One generation of the channel: the version it names and the digest of that version's file.

    `entry` is the digest of the channel's entry, empty where that is not known. `trusted` says whether
    somebody trusted vouches for the generation; one that is not is refused, and its number is free for
    another entry.
    """

    generation: int
    version: int
    digest: str
    trusted: bool = True
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A candidate that must not serve, the gate that said so, why, and what helps."""

    target: Target
    gate: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """Where a follower stands.

    `handled` is the highest trusted generation that was served or refused; polls ask for what is newer.
    `failures` counts transient failures in a row; `last_error` is the newest of them, until one succeeds.
    `refusal` is that of the highest generation, for as long as nothing newer serves. `looks_back` says that
    nothing serves and older versions are left to try. `stalls` says that an older version is looked for while
    the candidate cannot be had.
    """

    phase: Phase = Phase.FOLLOWING
    serving: Target | None = None
    candidate: Target | None = None
    handled: int = 0
    failures: int = 0
    last_error: str | None = None
    refusal: Refusal | None = None
    looks_back: bool = False
    stalls: bool = False


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
class FoundBehind:
    """Looking back found an older generation, one that served before what was refused."""

    target: Target


@dataclass(frozen=True, slots=True)
class NothingBehind:
    """There is no older version left to try; `for_now` where each that was not refused failed for now."""

    for_now: bool = False


@dataclass(frozen=True, slots=True)
class Passed:
    """The stage, or the swap, was performed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong that may go right the next time."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A gate found that the candidate must not serve; `at_fault` is its canary where that is the reason."""

    gate: str
    reason: str
    remedy: str = ""
    at_fault: Target | None = None


@dataclass(frozen=True, slots=True)
class Regressed:
    """The consumer found that `serving` does worse than what served before it, and `before` is still warm."""

    serving: Target
    before: Target
    reason: str


@dataclass(frozen=True, slots=True)
class FellBack:
    """What served before serves again."""


Trouble = Failed | Rejected | Regressed
Event = Woke | NothingNew | Found | FoundBehind | NothingBehind | Passed | FellBack | Trouble

# --- actions: what to perform next ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Poll:
    """Look for a generation newer than `after`."""

    after: int


@dataclass(frozen=True, slots=True)
class LookBack:
    """Find what rollbacks would lead to, the nearest that was not refused yet."""


@dataclass(frozen=True, slots=True)
class RunStage:
    """Take the candidate through one stage."""

    stage: Phase
    target: Target


@dataclass(frozen=True, slots=True)
class Swap:
    """Let the target serve: one reference assignment."""

    target: Target


@dataclass(frozen=True, slots=True)
class FallBack:
    """Let what served before serve again: one reference assignment."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Refuse:
    """Record a refusal where people look for it."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait: `retry` is the number of failures in a row, 0 for the usual time between polls."""

    retry: int = 0


Action = Poll | LookBack | RunStage | Swap | FallBack | Refuse | Rest


def step(state: State, event: Event) -> tuple[State, Action]:
    """The next state and action after `event`.

    Raises:
        ValueError: the event cannot follow from the state; a fault of the caller's.
    """
    match event:
        case Woke():
            return state, Poll(state.handled)
        case NothingNew() | NothingBehind():
            return _nothing(state, event)
        case Found(target) | FoundBehind(target):
            return _found(state, target, behind=isinstance(event, FoundBehind))
        case Passed():
            return _passed(state)
        case FellBack():
            return _fell_back(state)
        case Failed() | Rejected() | Regressed():
            return _went_wrong(state, event)


def _went_wrong(state: State, trouble: Trouble) -> tuple[State, Action]:
    match trouble:
        case Failed(reason):
            return _failed(state, reason)
        case Rejected():
            return _rejected(state, trouble)
        case Regressed():
            return _regressed(state, trouble)


def _nothing(state: State, event: NothingNew | NothingBehind) -> tuple[State, Action]:
    match event:
        case NothingNew() if (
            state.looks_back
        ):  # what failed behind is not mended by an answer about what is new
            return state, LookBack()
        case NothingBehind(for_now) if state.stalls or for_now:  # what failed is tried again, later
            return replace(state, stalls=False), Rest(state.failures)
        case _:
            return replace(state, failures=0, last_error=None, looks_back=False), Rest()


def _found(state: State, target: Target, *, behind: bool) -> tuple[State, Action]:
    if target.trusted and target.generation <= state.handled and not behind:
        return _failed(
            state,
            f"the store shows generation {target.generation} after {state.handled}: "
            "the channel went backwards",
        )
    return replace(state, candidate=target, phase=Phase.FETCHING), RunStage(Phase.FETCHING, target)


def _passed(state: State) -> tuple[State, Action]:
    if state.candidate is None:
        raise ValueError(f"no candidate can have passed while {state.phase}")
    if state.phase is Phase.SERVING:  # the swap itself was performed
        return _serve(state, state.candidate)
    if state.phase is Phase.WARMING:
        return replace(state, phase=Phase.SERVING), Swap(state.candidate)
    following = STAGES[STAGES.index(state.phase) + 1]
    return replace(state, phase=following), RunStage(following, state.candidate)


def _serve(state: State, target: Target) -> tuple[State, Action]:
    # what serves instead of a refused generation does not make that one good
    refusal = state.refusal if target.generation < state.handled else None
    handled = max(state.handled, target.generation)
    return State(phase=Phase.SERVING, serving=target, handled=handled, refusal=refusal), Poll(handled)


def _failed(state: State, reason: str) -> tuple[State, Action]:
    failed = replace(_at_rest(state), failures=state.failures + 1, last_error=reason)
    if state.candidate is not None and _looks_elsewhere(state, state.candidate):
        return replace(failed, stalls=True), LookBack()
    return failed, Rest(failed.failures)


def _looks_elsewhere(state: State, failed: Target) -> bool:
    """Whether a newcomer looks for an older version at once after `failed` failed for now."""
    if state.stalls:  # that was an older one, and there may be one more
        return True
    is_new = failed.generation > state.handled
    return state.serving is None and is_new and state.failures + 1 >= TRIES_BEFORE_LOOKING_BACK


def _rejected(state: State, why: Rejected) -> tuple[State, Action]:
    if state.candidate is None:
        raise ValueError(f"no candidate can be rejected while {state.phase}")
    refusal = Refusal(why.at_fault or state.candidate, why.gate, why.reason, why.remedy)
    newest = state.candidate.generation > state.handled
    rested = replace(
        _at_rest(state),
        handled=max(state.handled, state.candidate.generation if state.candidate.trusted else 0),
        failures=state.failures if state.stalls else 0,
        refusal=refusal if newest else state.refusal,
        looks_back=state.serving is None,
    )
    return rested, Refuse(refusal)


def _regressed(state: State, why: Regressed) -> tuple[State, Action]:
    if state.serving != why.serving:  # something else serves by now
        return state, Poll(state.handled)
    refusal = Refusal(why.serving, REGRESSION, why.reason, "Promote a newer version once the cause is known")
    handled = max(state.handled, why.serving.generation)
    return replace(_at_rest(state), serving=why.before, handled=handled, refusal=refusal), FallBack(refusal)


def _fell_back(state: State) -> tuple[State, Action]:
    if state.refusal is None:
        raise ValueError("nothing was refused that one could fall back from")
    return state, Refuse(state.refusal)


def _at_rest(state: State) -> State:
    phase = Phase.SERVING if state.serving else Phase.FOLLOWING
    return replace(state, phase=phase, candidate=None, stalls=False)


def retry_pause(retry: int, fraction: float) -> float:
    """Seconds to rest before retry number `retry` (1, 2, …): exponential with full jitter.

    Args:
        retry: how many failures there were in a row.
        fraction: a random number in [0, 1); it spreads a fleet over the second half of the pause.
    """
    longest = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(retry - 1, 16))
    return longest * (0.5 + fraction / 2)
