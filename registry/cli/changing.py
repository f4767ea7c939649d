"""`ferry promote | rollback | hold | release`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.opening import open_registry
from ferryline.registry.cli.output import ago, note, print_fields, print_json, short
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.errors import ConflictError, StoreError, UsageError
from ferryline.registry.names import ModelReference


def promote(
    store: str | None,
    output: OutputFormat,
    reference: str,
    channel: str,
    *,
    canary: float | None,
    expect: int | None,
    wait: float | None,
    reason: str,
    force: bool,
    allow_contract_change: bool,
    dry_run: bool,
) -> None:
    """Promote MODEL@VERSION on `channel`."""
    wanted = ModelReference.parse(reference)
    if wanted.version is None:
        raise UsageError(f"{reference!r} names no version; write MODEL@VERSION, as in {wanted.model}@7")
    _require_share(canary)
    require_wait(wait, dry_run=dry_run)
    registry = open_registry(store)
    with telling_the_winner(registry, wanted.model, channel, expect):
        entry = registry.promote(
            wanted.model,
            wanted.version,
            channel,
            canary=canary,
            expect=expect,
            reason=reason,
            force=force,
            allow_contract_change=allow_contract_change,
            dry_run=dry_run,
        )
    _finish(registry, output, entry, wait, dry_run=dry_run)


def rollback(
    store: str | None,
    output: OutputFormat,
    reference: str,
    *,
    to: int | None,
    expect: int | None,
    wait: float | None,
    reason: str,
    dry_run: bool,
) -> None:
    """Roll a channel back."""
    wanted = channel_reference(reference)
    require_wait(wait, dry_run=dry_run)
    registry = open_registry(store)
    with telling_the_winner(registry, wanted.model, wanted.channel_or_default, expect):
        entry = registry.rollback(
            wanted.model, wanted.channel_or_default, to=to, expect=expect, reason=reason, dry_run=dry_run
        )
    _finish(registry, output, entry, wait, dry_run=dry_run)


def hold(store: str | None, output: OutputFormat, reference: str, *, reason: str) -> None:
    """Hold a channel."""
    wanted = channel_reference(reference)
    registry = open_registry(store)
    with telling_the_winner(registry, wanted.model, wanted.channel_or_default):
        entry = registry.hold(wanted.model, wanted.channel_or_default, reason=reason)
    _finish(registry, output, entry, None)


def release(store: str | None, output: OutputFormat, reference: str, *, reason: str) -> None:
    """Release a channel."""
    wanted = channel_reference(reference)
    registry = open_registry(store)
    with telling_the_winner(registry, wanted.model, wanted.channel_or_default):
        entry = registry.release(wanted.model, wanted.channel_or_default, reason=reason)
    _finish(registry, output, entry, None)


def channel_reference(text: str) -> ModelReference:
    """A reference that means a channel.

    Raises:
        UsageError: it names a version.
    """
    reference = ModelReference.parse(text)
    if reference.version is not None:
        raise UsageError(f"{text!r} names a version; here a channel is meant: {reference.model}:production")
    return reference


def require_wait(seconds: float | None, *, dry_run: bool) -> None:
    """Return when `--wait` can be meant.

    Raises:
        UsageError: it is no span of time, or there is nothing to wait for.
    """
    if seconds is None:
        return
    if not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"--wait takes a number of seconds, 0 or more, not {seconds:g}")
    if dry_run:
        raise UsageError("--dry-run writes nothing that --wait could wait for; leave one of them out")


@contextmanager
def telling_the_winner(
    registry: Registry, model: str, channel: str, expect: int | None = None
) -> Iterator[None]:
    """Say of a lost race who won it, and when.

    Raises:
        ConflictError: the one that came, with the entry that was there first.
    """
    try:
        yield
    except ConflictError as error:
        winner = _head(registry, model, channel)
        if winner is None:
            raise
        raise ConflictError(_lost(winner, expect)) from error


def entry_fields(entry: ChannelEntry, *, dry_run: bool = False) -> list[tuple[str, str]]:
    """A channel's entry for a person."""
    canary = entry.canary
    fields = [
        ("would write" if dry_run else "channel", f"{entry.model}:{entry.channel}"),
        ("serves", f"{entry.model}@{entry.version} ({short(entry.blob_digest)})"),
        ("canary", f"{entry.model}@{canary.version} for {canary.percent:g} %" if canary else ""),
        ("generation", str(entry.generation)),
        ("operation", entry.operation + (", held" if entry.held else "")),
    ]
    return [(name, value) for name, value in fields if value]


def _lost(winner: ChannelEntry, expect: int | None) -> str:
    channel = f"{winner.model}:{winner.channel}"
    why = f", {winner.reason!r}" if winner.reason else ""
    expected = "" if expect is None else f", not {expect}"
    written = f"by {winner.actor} at {winner.at:%Y-%m-%d %H:%M:%S %Z} ({ago(winner.at)}{why})"
    return (
        f"{channel} is at generation {winner.generation}{expected}: someone else was first. "
        f"It is a {winner.operation} of version {winner.version} {written}. "
        f"Nothing was written; look at it with `ferry history {channel}` and decide again"
    )


def _head(registry: Registry, model: str, channel: str) -> ChannelEntry | None:
    try:
        return registry.channel(model, channel).head()
    except StoreError:
        return None


def _require_share(percent: float | None) -> None:
    if percent is not None and not 0 < percent < 100:  # noqa: PLR2004 - a percentage; false for NaN too
        raise UsageError(f"--canary takes a percentage above 0 and below 100, not {percent:g}")


def _finish(
    registry: Registry,
    output: OutputFormat,
    entry: ChannelEntry,
    wait: float | None,
    *,
    dry_run: bool = False,
) -> None:
    if output is OutputFormat.JSON:
        print_json({**entry.model_dump(mode="json"), "dry_run": dry_run})
    else:
        print_fields(entry_fields(entry, dry_run=dry_run))
    if wait is not None:
        from ferryline.registry.cli.waiting import wait_for_consumers

        note(str(wait_for_consumers(registry, entry, wait)))
