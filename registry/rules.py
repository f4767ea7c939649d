"""The rules of a channel, without IO: what the next entry may be, and where a rollback leads.

- An entry names the one before it by digest and has the next generation: history is the log itself.
- `expect` is a compare-and-set on the generation; where it does not hold, nothing is written.
- While the head is held, or a canary runs, automatic promotions are refused; a hold stops a human's too,
  unless forced.
- A canary entry keeps the version that serves and adds a second one; the next promotion or rollback ends it.
- A rollback is a newer generation that names an older version, and it holds the channel. While a canary
  runs it takes back the canary and nothing else.
- Going back undoes: after promotions of 1, 2, 3 the first rollback leads to 2 and the second to 1. For that,
  each entry names the generation that undoing it leads to, so going back reads two entries and not the log.
- A rollback takes back what served, wherever it leads: the way back from it never begins with that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ferryline.registry.documents import ChannelEntry, Operation
from ferryline.registry.errors import ChannelHeldError, ConflictError, NotFoundError, UsageError


@dataclass(frozen=True, slots=True)
class Change:
    """What someone wants of a channel.

    `version` is None where the operation keeps the present one; with `canary_percent` it is the version that
    is to serve so many percent beside the present one.
    """

    operation: Operation
    version: int | None = None
    canary_percent: float | None = None
    expect: int | None = None
    automatic: bool = False
    force: bool = False
    contract_change: bool = False

    @property
    def replaces_all(self) -> bool:
        """Whether one version is to serve everything, by whatever file it has now."""
        return self.operation is Operation.PROMOTE and self.canary_percent is None


@dataclass(frozen=True, slots=True)
class CanaryDecision:
    """The second version that is to serve, and its share."""

    version: int
    percent: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What the next entry says; the caller adds digests, actor and time."""

    generation: int
    version: int
    held: bool
    canary: CanaryDecision | None = None


def decide(head: ChannelEntry | None, change: Change, *, channel: str) -> Decision:
    """The next entry of a channel whose newest entry is `head`.

    Raises:
        ConflictError: the channel is not at `change.expect`.
        ChannelHeldError: the head is held, or a canary runs, and the change may not pass it.
        NotFoundError: there is nothing yet to hold, release, roll back or put a canary beside.
        UsageError: the canary is no second version, or its share is no share.
    """
    generation = head.generation if head else 0
    require_expected(head, change.expect, channel=channel)
    _require_passage(head, change, channel=channel)
    if change.replaces_all:
        return Decision(generation + 1, _named(change), held=False)
    if head is None:
        raise NotFoundError(f"{channel} has no entry yet; promote a version first")
    if change.operation is Operation.PROMOTE:
        return Decision(generation + 1, head.version, held=False, canary=_canary(head, change, channel))
    if change.operation is Operation.ROLLBACK:
        return Decision(generation + 1, _named(change), held=True)
    held = change.operation is Operation.HOLD
    return Decision(generation + 1, head.version, held=held, canary=running_canary(head))


def require_expected(head: ChannelEntry | None, expect: int | None, *, channel: str) -> None:
    """Return if a channel is at the generation `expect`, or None is expected.

    Raises:
        ConflictError: it is not.
    """
    generation = head.generation if head else 0
    if expect not in {None, generation}:
        raise ConflictError(
            f"{channel} is at generation {generation}, not {expect}: someone else was first. "
            f"Look at it with `ferry history {channel}` and decide again"
        )


def _require_passage(head: ChannelEntry | None, change: Change, *, channel: str) -> None:
    if head is None or change.operation is not Operation.PROMOTE:
        return
    if head.held and (change.automatic or not change.force):
        why = f" ({head.reason})" if head.reason else ""
        raise ChannelHeldError(
            f"{channel} is held at version {head.version} by {head.actor}{why}; "
            f"lift it with `ferry release {channel}`, or promote with --force"
        )
    if head.canary is not None and change.automatic:
        raise ChannelHeldError(
            f"version {head.canary.version} serves {head.canary.percent:g} % of {channel} as a canary; "
            "an automatic promotion must not decide over it: promote it, or take it back with "
            f"`ferry rollback {channel}`"
        )


def _named(change: Change) -> int:
    if change.version is None:
        raise UsageError(f"a {change.operation} names a version")
    return change.version


def _canary(head: ChannelEntry, change: Change, channel: str) -> CanaryDecision:
    version, percent = _named(change), change.canary_percent or 0.0
    if not 0 < percent < 100:  # noqa: PLR2004 - a percentage
        raise UsageError(f"a canary gets more than 0 and less than 100 percent, not {percent:g}")
    if version == head.version:
        raise UsageError(f"version {version} serves all of {channel} already; a canary is another version")
    return CanaryDecision(version, percent)


def running_canary(head: ChannelEntry | None) -> CanaryDecision | None:
    """The canary that runs beside the version of `head`."""
    canary = head.canary if head is not None else None
    return CanaryDecision(canary.version, canary.percent) if canary else None


def undo_generation(
    head: ChannelEntry | None, decision: Decision, restored: ChannelEntry | None
) -> int | None:
    """The generation that undoing the next entry leads to, None where nothing served before.

    Args:
        head: the newest entry.
        decision: what the next one says.
        restored: for a rollback, the entry that it goes back to, None where its version is not on the way
            back; then the way back stays what it was, without the head.
    """
    if head is None:
        return None
    if restored is not None:
        return restored.undoes_to
    # what is held and another version is a rollback: the head was taken back, and is no step of the way back
    keeps_way_back = decision.held or decision.version == head.version
    return head.undoes_to if keeps_way_back else head.generation


def restored_entry(chain: Iterable[ChannelEntry], version: int) -> ChannelEntry | None:
    """The entry of `version` among those a channel can go back to, newest first; None where there is none."""
    return next((entry for entry in chain if entry.version == version), None)
