"""`ferry promote | rollback | hold | release`."""

from __future__ import annotations

from registry.catalogue import Registry
from registry.cli.formats import OutputFormat
from registry.cli.output import note, print_fields, print_json, short
from registry.convergence import wait_until_served
from registry.documents import ChannelEntry
from registry.errors import UsageError
from registry.names import ModelReference
from registry.settings import load_settings


def promote(
    store: str | None,
    output: OutputFormat,
    reference: str,
    channel: str,
    *,
    expect: int | None,
    wait: float | None,
    reason: str,
    force: bool,
    allow_contract_change: bool,
) -> None:
    """Promote MODEL@VERSION on `channel`."""
    wanted = ModelReference.parse(reference)
    if wanted.version is None:
        raise UsageError(f"{reference!r} names no version; write MODEL@VERSION, as in {wanted.model}@7")
    registry = _open(store)
    entry = registry.promote(
        wanted.model,
        wanted.version,
        channel,
        expect=expect,
        reason=reason,
        force=force,
        allow_contract_change=allow_contract_change,
    )
    _finish(registry, output, entry, wait)


def rollback(
    store: str | None,
    output: OutputFormat,
    reference: str,
    *,
    to: int | None,
    expect: int | None,
    wait: float | None,
    reason: str,
) -> None:
    """Roll a channel back."""
    wanted = channel_reference(reference)
    registry = _open(store)
    entry = registry.rollback(wanted.model, wanted.channel_or_default, to=to, expect=expect, reason=reason)
    _finish(registry, output, entry, wait)


def hold(store: str | None, output: OutputFormat, reference: str, *, reason: str) -> None:
    """Hold a channel."""
    wanted = channel_reference(reference)
    _print(output, _open(store).hold(wanted.model, wanted.channel_or_default, reason=reason))


def release(store: str | None, output: OutputFormat, reference: str, *, reason: str) -> None:
    """Release a channel."""
    wanted = channel_reference(reference)
    _print(output, _open(store).release(wanted.model, wanted.channel_or_default, reason=reason))


def channel_reference(text: str) -> ModelReference:
    """A reference that means a channel.

    Raises:
        UsageError: it names a version.
    """
    reference = ModelReference.parse(text)
    if reference.version is not None:
        raise UsageError(f"{text!r} names a version; here a channel is meant: {reference.model}:production")
    return reference


def print_entry(entry: ChannelEntry) -> None:
    """A channel's entry for a person."""
    print_fields(
        [
            ("channel", f"{entry.model}:{entry.channel}"),
            ("serves", f"{entry.model}@{entry.version} ({short(entry.blob_digest)})"),
            ("generation", str(entry.generation)),
            ("operation", entry.operation + (", held" if entry.held else "")),
        ]
    )


def _open(store: str | None) -> Registry:
    return Registry.open(load_settings(store=store).store)


def _finish(registry: Registry, output: OutputFormat, entry: ChannelEntry, wait: float | None) -> None:
    _print(output, entry)
    if wait is not None:
        note(str(wait_until_served(registry, entry, seconds=wait)))


def _print(output: OutputFormat, entry: ChannelEntry) -> None:
    if output is OutputFormat.JSON:
        print_json(entry)
    else:
        print_entry(entry)
