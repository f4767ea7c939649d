"""Whether a published version is to serve. Pure: what serves is told, nothing is read.

- `manual`: never; a person promotes.
- A held channel is a person's word, and no policy passes it; a canary is a comparison that is not over.
- What serves is never replaced by an older version or by itself.
- `min_records` and `min_accuracy` hold for every mode but `manual`.
- `no_worse`: the accuracy may lie at most `max_drop` below that of the version that serves, and at most
  `max_drop_from_best` below the best of those that served lately, or many small steps would lead down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ferryline.registry.documents import ChannelEntry, Operation
from ferryline.streams.pipeline import PromotionMode, PromotionSpec


@dataclass(frozen=True, slots=True)
class Candidate:
    """A published version; `records` is all it learnt from, `accuracy` its prequential one.

    `digest` is the manifest's, for a number that was lost with its manifest is given out again.
    """

    version: int
    records: int
    accuracy: float | None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """A version that served lately; `accuracy` is None where it is not known."""

    version: int
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Serving:
    """What the channel says now.

    Attributes:
        version: which serves.
        generation: of the channel.
        held: whether a person holds it.
        accuracy: from the version's manifest; None where it is not known.
        canary: the version that runs beside it as a canary, if one does.
        recent: the versions that set the standard, see `recently_served`.
        digest: of the version's manifest.
    """

    version: int
    generation: int
    held: bool
    accuracy: float | None
    canary: int | None = None
    recent: tuple[Served, ...] = ()
    digest: str = ""

    @property
    def best(self) -> Served | None:
        """The most accurate of the recent versions, the newest of equals; None where none is known."""
        known = [served for served in self.recent if served.accuracy is not None]
        return max(known, key=lambda served: (served.accuracy or 0.0, served.version), default=None)


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


def recently_served(entries: Sequence[ChannelEntry]) -> list[ChannelEntry]:
    """Returns those of a channel's entries, newest first, whose versions set the standard for the next one.

    They go back to the newest promotion or rollback by a person, whose version is the standard whatever
    served before it. Entries that kept the version (a hold, a release, a canary and its rollback) are left
    out.
    """
    found = []
    for entry, before in zip_longest(entries, entries[1:]):
        if _kept_the_version(entry, before):
            continue
        found.append(entry)
        if not entry.automatic:
            break
    return found


def _kept_the_version(entry: ChannelEntry, before: ChannelEntry | None) -> bool:
    if entry.operation is Operation.ROLLBACK:
        return before is not None and before.canary is not None and before.version == entry.version
    return entry.operation in {Operation.HOLD, Operation.RELEASE} or entry.canary is not None


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
    if serving.canary is not None:
        return f"version {serving.canary} runs as a canary beside version {serving.version}"
    if not _is_newer(candidate, serving):
        return f"version {serving.version} serves already"
    if spec.mode is PromotionMode.NO_WORSE:
        return _accuracy_objection(spec, candidate, serving)
    return None


def _is_newer(candidate: Candidate, serving: Serving) -> bool:
    if candidate.version == serving.version:
        return candidate.digest != serving.digest
    return candidate.version > serving.version


def _accuracy_objection(spec: PromotionSpec, candidate: Candidate, serving: Serving) -> str | None:
    if _is_below(candidate, serving.accuracy, spec.max_drop):
        return (
            f"accuracy {_shown(candidate.accuracy)} is more than {spec.max_drop:g} below the "
            f"{_shown(serving.accuracy)} of version {serving.version}"
        )
    best = serving.best
    if best is not None and _is_below(candidate, best.accuracy, spec.drop_from_best):
        return (
            f"accuracy {_shown(candidate.accuracy)} is more than {spec.drop_from_best:g} below the "
            f"{_shown(best.accuracy)} of version {best.version}, the best that served lately; "
            "a version that a person promotes sets a new standard"
        )
    return None


def _is_below(candidate: Candidate, accuracy: float | None, drop: float) -> bool:
    if accuracy is None:
        return False
    return candidate.accuracy is None or candidate.accuracy < accuracy - drop


def _reason(spec: PromotionSpec, candidate: Candidate, serving: Serving | None) -> str:
    after = f", version {serving.version} had {_shown(serving.accuracy)}" if serving else ""
    return f"{spec.mode}: accuracy {_shown(candidate.accuracy)} after {candidate.records} records{after}"


def _shown(accuracy: float | None) -> str:
    return "unknown" if accuracy is None else f"{accuracy:.4f}"
