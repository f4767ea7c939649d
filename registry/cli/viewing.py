"""`ferry list | show | history | status`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any

from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.changing import channel_reference
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.opening import open_registry
from ferryline.registry.cli.output import ago, note, print_fields, print_json, print_table, short, size_of
from ferryline.registry.cli.version_fields import metrics_of, version_fields
from ferryline.registry.convergence import Positions, Service, services
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.errors import NotFoundError, UntrustedAnswerError, UsageError
from ferryline.registry.log import READERS
from ferryline.registry.names import ModelReference
from ferryline.registry.versions import Versions


def list_models(store: str | None, output: OutputFormat) -> None:
    """Every model, its newest version and what its channels serve."""
    registry = open_registry(store)
    unreadable = Unreadable()
    heads = {model: _heads(registry, model, unreadable) for model in registry.models()}
    newest = {model: registry.versions(model).newest() for model in heads}
    if output is OutputFormat.JSON:
        print_json(
            [
                {"model": model, "newest_version": newest[model], "channels": channels}
                for model, channels in heads.items()
            ]
        )
    else:
        rows = [
            (model, str(newest[model]), ", ".join(_served(*head) for head in channels.items()) or "-")
            for model, channels in heads.items()
        ]
        print_table(["MODEL", "NEWEST", "CHANNELS"], rows)
    unreadable.complain()


def list_versions(store: str | None, output: OutputFormat, model: str, limit: int) -> None:
    """The newest versions of a model, newest first."""
    registry = open_registry(store)
    versions = registry.versions(model)
    numbers = versions.newest_numbers(limit)
    if not numbers:
        raise NotFoundError(f"no model {model} here; `ferry list` shows what there is")
    unreadable = Unreadable()
    read = partial(_manifest, versions, unreadable)
    with ThreadPoolExecutor(READERS, thread_name_prefix="read-manifest") as pool:
        manifests = [found for found in pool.map(read, numbers) if found is not None]
    if output is OutputFormat.JSON:
        print_json(manifests)
    else:
        heads = _heads(registry, model, unreadable)
        print_table(
            ["VERSION", "CREATED", "SIZE", "DIGEST", "RECORDS", "METRICS", "SERVES"],
            [_version_row(manifest, heads) for manifest in manifests],
        )
    unreadable.complain()


def show(store: str | None, output: OutputFormat, reference: str) -> None:
    """One version."""
    registry = open_registry(store)
    wanted = ModelReference.parse(reference)
    manifest = registry.resolve(wanted)
    shares = _shares(_heads(registry, wanted.model, Unreadable()), manifest.version)
    if output is OutputFormat.JSON:
        print_json({**manifest.model_dump(mode="json"), "serves": list(shares)})
        return
    print_fields(version_fields(registry, manifest, _serves(shares)))


def history(store: str | None, output: OutputFormat, reference: str, limit: int) -> None:
    """A channel's entries, newest first."""
    wanted = channel_reference(reference)
    channel = open_registry(store).channel(wanted.model, wanted.channel_or_default)
    channel.require_head()
    entries = channel.newest(limit + 1)  # one more, for what the oldest one shown changed
    if output is OutputFormat.JSON:
        print_json(entries[::-1][:limit])
        return
    before = [None, *entries[:-1]]
    rows = [_history_row(entry, old) for entry, old in zip(entries, before, strict=True)]
    print_table(
        ["GENERATION", "AT", "OPERATION", "VERSION", "BY", "REASON"],
        rows[::-1][:limit],
        title=f"{channel}" + (" (held)" if entries[-1].held else ""),
    )


def status(store: str | None, output: OutputFormat, reference: str | None) -> None:
    """Every consumer, what it serves and how far behind its channel it is."""
    registry = open_registry(store)
    heartbeats = list(registry.consumers.all(on_unreadable=note))
    now = registry.store.now()  # after the answer that tells it
    found = services(heartbeats, now)
    if reference is not None:
        wanted = channel_reference(reference)
        found = [service for service in found if _is_wanted(service, wanted)]
    behind = _behind(registry, found)
    lines = [_status_line(*each) for each in zip(found, behind, strict=True)]
    if output is OutputFormat.JSON:
        print_json(lines)
        return
    print_table(
        ["CONSUMER", "CHANNEL", "SERVES", "GEN", "BEHIND", "SINCE", "STATE", "LAST ERROR"],
        [_status_row(service, line, now) for service, line in zip(found, lines, strict=True)],
    )


class Unreadable:
    """What could not be read of a listing; one bad object must not hide all the others."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, error: Exception) -> None:
        """Say what is wrong with one object."""
        self._count += 1
        note(f"unreadable: {error}")

    def complain(self) -> None:
        """Let the exit code tell that the list is not whole.

        Raises:
            UntrustedAnswerError: something could not be read.
        """
        if self._count:
            raise UntrustedAnswerError(
                f"the list is not whole: {self._count} object(s) could not be read; "
                "see the lines above, and restore them from a backup"
            )


def _manifest(versions: Versions, unreadable: Unreadable, number: int) -> Manifest | None:
    try:
        return versions.get(number)
    except (UntrustedAnswerError, NotFoundError) as error:
        unreadable.add(error)
        return None


def _heads(registry: Registry, model: str, unreadable: Unreadable) -> dict[str, ChannelEntry | None]:
    """What each channel serves, None where its newest entry cannot be read."""
    heads: dict[str, ChannelEntry | None] = {}
    for name in registry.channels(model):
        try:
            head = registry.channel(model, name).head()
        except UntrustedAnswerError as error:
            unreadable.add(error)
            heads[name] = None
        else:
            if head is not None:
                heads[name] = head
    return heads


def _behind(registry: Registry, found: list[Service]) -> list[int | None]:
    """How many generations each is behind, None where that is not known; why not is said."""
    heads: dict[tuple[str, str], ChannelEntry | None] = {}
    unknown = set()
    for channel in {(service.report.model, service.report.channel) for service in found}:
        try:
            heads[channel] = registry.channel(*channel).head()
        except (UsageError, UntrustedAnswerError) as error:
            note(str(error))
            unknown.add(channel)
    positions = Positions(registry)
    behind: list[int | None] = []
    for service in found:
        report = service.report
        channel = (report.model, report.channel)
        behind.append(None if channel in unknown else positions.behind(report, heads[channel]))
        if behind[-1] is None and channel not in unknown:
            note(
                f"{service.heartbeat.consumer} serves {service.serves} as generation {report.generation}, "
                f"which {report.model}:{report.channel} does not show so: the log was cut or replaced, or "
                "that entry cannot be read; `ferry verify` tells"
            )
    return behind


def _served(channel: str, head: ChannelEntry | None) -> str:
    if head is None:
        return f"{channel}: unreadable"
    return f"{channel}: {head.version}{_canary(head)}" + (" (held)" if head.held else "")


def _canary(head: ChannelEntry) -> str:
    return f" + {head.canary.version} for {head.canary.percent:g} %" if head.canary else ""


def _shares(heads: dict[str, ChannelEntry | None], version: int) -> dict[str, float]:
    """The channels that serve `version`, be it as a canary, and the percentage it gets of each."""
    shares = {}
    for name, head in heads.items():
        canary = head.canary if head is not None else None
        if canary is not None and canary.version == version:
            shares[name] = canary.percent
        elif head is not None and head.version == version:
            shares[name] = 100.0 - (canary.percent if canary else 0.0)
    return shares


def _serves(shares: dict[str, float]) -> str:
    return ", ".join(
        name if percent == 100 else f"{name} ({percent:g} %)"  # noqa: PLR2004 - a percentage
        for name, percent in shares.items()
    )


def _version_row(manifest: Manifest, heads: dict[str, ChannelEntry | None]) -> tuple[str, ...]:
    return (
        str(manifest.version),
        ago(manifest.created_at),
        size_of(manifest.blob.size),
        short(manifest.blob.digest),
        str(manifest.lineage.records) if manifest.lineage else "-",
        metrics_of(manifest),
        _serves(_shares(heads, manifest.version)) or "-",
    )


def _history_row(entry: ChannelEntry, before: ChannelEntry | None) -> tuple[str, ...]:
    changed = before is not None and before.version != entry.version
    change = f"{before.version} -> {entry.version}" if before and changed else str(entry.version)
    return (
        str(entry.generation),
        f"{entry.at:%Y-%m-%d %H:%M:%S}",
        entry.operation + (" (held)" if entry.held else ""),
        change + _canary(entry),
        entry.actor + (" (automatic)" if entry.automatic else ""),
        entry.reason or "-",
    )


def _is_wanted(service: Service, wanted: ModelReference) -> bool:
    report = service.report
    return report.model == wanted.model and wanted.channel in {None, report.channel}


def _status_line(service: Service, behind: int | None) -> dict[str, Any]:
    report = service.report
    return {
        "consumer": service.heartbeat.consumer,
        "role": service.heartbeat.role,
        "host": service.heartbeat.host,
        "pid": service.heartbeat.pid,
        "at": service.heartbeat.at,
        "live": not service.stale,
        "generations_behind": behind,
        **report.model_dump(mode="json"),
    }


def _status_row(service: Service, line: dict[str, Any], now: datetime) -> tuple[str, ...]:
    report = service.report
    return (
        service.heartbeat.consumer,
        f"{report.model}:{report.channel}",
        service.serves,
        str(report.generation or "-"),
        "?" if line["generations_behind"] is None else str(line["generations_behind"]),
        ago(report.since),
        f"gone, last seen {ago(service.heartbeat.at, now)}" if service.stale else report.phase,
        report.last_error or "-",
    )
