"""Whether a published version is to serve. Pure: what serves is told, nothing is read.

- `manual`: never; a person promotes.
- A held channel is a person's word, and no policy passes it.
- What serves is never replaced by an older version or by itself.
- `min_records` and `min_accuracy` hold for every mode but `manual`.
- `no_worse`: the accuracy may lie at most `max_drop` below that of the version that serves.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferryline.streams.pipeline import PromotionMode, PromotionSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """A published version; `records` is all it learnt from, `accuracy` its prequential one."""

    version: int
    records: int
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Serving:
    """What the channel says now; `accuracy` is from the manifest of its version."""

    version: int
    generation: int
    held: bool
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Promote or not, and why, in words for the history or the log."""

    promote: bool
    reason: str


def decide(spec: PromotionSpec, candidate: Candidate, serving: Serving | None) -> Verdict:
    """Judge `candidate` against the policy and against what serves (None: nothing yet)."""
    for objection in (_policy_objection(spec, candidate), _channel_objection(spec, candidate, serving)):
        if objection:
            return Verdict(promote=False, reason=objection)
    return Verdict(promote=True, reason=_reason(spec, candidate, serving))


def _policy_objection(spec: PromotionSpec, candidate: Candidate) -> str | None:
    if spec.mode is PromotionMode.MANUAL:
        return "promotion is manual"
    if candidate.records < spec.min_records:
        return f"learnt from {candidate.records} records, min_records is {spec.min_records}"
    if spec.min_accuracy and (candidate.accuracy is None or candidate.accuracy < spec.min_accuracy):
        return f"accuracy {_shown(candidate.accuracy)} is below min_accuracy {spec.min_accuracy:g}"
    return None


def _channel_objection(spec: PromotionSpec, candidate: Candidate, serving: Serving | None) -> str | None:
    if serving is None:
        return None
    if serving.held:
        return f"the channel is held at version {serving.version}"
    if serving.version >= candidate.version:
        return f"version {serving.version} serves already"
    if spec.mode is PromotionMode.NO_WORSE and _is_worse(spec, candidate, serving):
        return (
            f"accuracy {_shown(candidate.accuracy)} is more than {spec.max_drop:g} below the "
            f"{_shown(serving.accuracy)} of version {serving.version}"
        )
    return None


def _is_worse(spec: PromotionSpec, candidate: Candidate, serving: Serving) -> bool:
    if serving.accuracy is None:
        return False
    return candidate.accuracy is None or candidate.accuracy < serving.accuracy - spec.max_drop


def _reason(spec: PromotionSpec, candidate: Candidate, serving: Serving | None) -> str:
    after = f", version {serving.version} had {_shown(serving.accuracy)}" if serving else ""
    return f"{spec.mode}: accuracy {_shown(candidate.accuracy)} after {candidate.records} records{after}"


def _shown(accuracy: float | None) -> str:
    return "unknown" if accuracy is None else f"{accuracy:.4f}"
