"""The rules of a channel, without IO: what the next entry may be, and where a rollback leads.

- An entry names the one before it by digest and has the next generation: history is the log itself.
- `expect` is a compare-and-set on the generation; where it does not hold, nothing is written.
- While the head is held, automatic promotions are refused, and a human's needs `force`.
- A rollback is a newer generation that names an older version, and it holds the channel.
- Going back undoes: after promotions of 1, 2, 3 the first rollback leads to 2 and the second to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.documents import ChannelEntry, Operation
from registry.errors import ChannelHeldError, ConflictError, NotFoundError


@dataclass(frozen=True, slots=True)
class Change:
    """What someone wants of a channel. `version` is None where the operation keeps the present one."""

    operation: Operation
    version: int | None = None
    expect: int | None = None
    automatic: bool = False
    force: bool = False
    contract_change: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What the next entry says; the caller adds digests, actor and time."""

    generation: int
    version: int
    held: bool


def decide(head: ChannelEntry | None, change: Change, *, channel: str) -> Decision:
    """The next entry of a channel whose newest entry is `head`.

    Raises:
        ConflictError: the channel is not at `change.expect`.
        ChannelHeldError: the head is held and the change may not pass it.
        NotFoundError: there is nothing yet to hold, release or roll back.
    """
    generation = head.generation if head else 0
    if change.expect is not None and change.expect != generation:
        raise ConflictError(
            f"{channel} is at generation {generation}, not {change.expect}: someone else was first. "
            f"Look at it with `ferry history {channel}` and decide again"
        )
    _require_passage(head, change, channel=channel)
    version = change.version if change.version is not None else (head.version if head else None)
    if version is None or (head is None and change.operation is not Operation.PROMOTE):
        raise NotFoundError(f"{channel} has no entry yet; promote a version first")
    return Decision(generation + 1, version, held=change.operation in {Operation.ROLLBACK, Operation.HOLD})


def _require_passage(head: ChannelEntry | None, change: Change, *, channel: str) -> None:
    if head is None or not head.held or change.operation is not Operation.PROMOTE:
        return
    if change.automatic or not change.force:
        why = f" ({head.reason})" if head.reason else ""
        raise ChannelHeldError(
            f"{channel} is held at version {head.version} by {head.actor}{why}; "
            f"lift it with `ferry release {channel}`, or promote with --force"
        )


def serving_stack(history: Iterable[ChannelEntry]) -> list[int]:
    """The versions one could still go back through, oldest first; the last one serves now.

    Args:
        history: all entries of the channel, oldest first.
    """
    stack: list[int] = []
    for entry in history:
        if entry.operation is Operation.ROLLBACK and entry.version in stack:
            while stack[-1] != entry.version:
                stack.pop()
        elif not stack or stack[-1] != entry.version:
            stack.append(entry.version)
    return stack


def rollback_target(history: Sequence[ChannelEntry], *, channel: str) -> int:
    """The version that served before the present one.

    Raises:
        NotFoundError: no other version ever served here.
    """
    stack = serving_stack(history)
    if len(stack) < 2:  # noqa: PLR2004 - the one that serves, and one before it
        raise NotFoundError(
            f"{channel} has never served another version than the present one; name one with --to VERSION"
        )
    return stack[-2]
