"""`ferry list | show | history | status | doctor`."""

from __future__ import annotations

from typing import Any

from registry.catalogue import Registry
from registry.cli.changing import channel_reference
from registry.cli.formats import OutputFormat
from registry.cli.output import ago, note, print_fields, print_json, print_table, short, size_of
from registry.convergence import Service, services
from registry.doctor import examine
from registry.documents import ChannelEntry, Manifest, TensorSpec, utc_now
from registry.errors import NotFoundError, StoreError, UntrustedAnswerError, UsageError
from registry.names import ModelReference
from registry.settings import load_settings
from registry.stores import open_store


def list_models(store: str | None, output: OutputFormat) -> None:
    """Every model, its newest version and what its channels serve."""
    registry = _open(store)
    heads = {model: _heads(registry, model) for model in registry.models()}
    newest = {model: registry.versions(model).newest() for model in heads}
    if output is OutputFormat.JSON:
        print_json(
            [
                {"model": model, "newest_version": newest[model], "channels": channels}
                for model, channels in heads.items()
            ]
        )
        return
    rows = [
        (model, str(newest[model]), ", ".join(_served(head) for head in channels.values()) or "-")
        for model, channels in heads.items()
    ]
    print_table(["MODEL", "NEWEST", "CHANNELS"], rows)


def list_versions(store: str | None, output: OutputFormat, model: str, limit: int) -> None:
    """The newest versions of a model, newest first."""
    registry = _open(store)
    versions = registry.versions(model)
    numbers = versions.numbers()
    if not numbers:
        raise NotFoundError(f"no model {model} here; `ferry list` shows what there is")
    manifests = [versions.get(number) for number in reversed(numbers[-limit:])]
    if output is OutputFormat.JSON:
        print_json(manifests)
        return
    heads = _heads(registry, model)
    print_table(
        ["VERSION", "CREATED", "SIZE", "DIGEST", "RECORDS", "METRICS", "SERVES"],
        [_version_row(manifest, heads) for manifest in manifests],
    )


def show(store: str | None, output: OutputFormat, reference: str) -> None:
    """One version."""
    registry = _open(store)
    wanted = ModelReference.parse(reference)
    manifest = registry.resolve(wanted)
    heads = _heads(registry, wanted.model)
    serves = [name for name, head in heads.items() if head.version == manifest.version]
    if output is OutputFormat.JSON:
        print_json({**manifest.model_dump(mode="json"), "serves": serves})
        return
    print_fields(_manifest_fields(manifest, serves))


def history(store: str | None, output: OutputFormat, reference: str, limit: int) -> None:
    """A channel's entries, newest first."""
    wanted = channel_reference(reference)
    channel = _open(store).channel(wanted.model, wanted.channel_or_default)
    channel.require_head()
    entries = list(channel.history())
    if output is OutputFormat.JSON:
        print_json(entries[::-1][:limit])
        return
    before = [None, *[entry.version for entry in entries]]
    rows = [_history_row(entry, before[entry.generation - 1]) for entry in entries]
    print_table(
        ["GENERATION", "AT", "OPERATION", "VERSION", "BY", "REASON"],
        rows[::-1][:limit],
        title=f"{channel}" + (" (held)" if entries[-1].held else ""),
    )


def status(store: str | None, output: OutputFormat, reference: str | None) -> None:
    """Every consumer, what it serves and how far behind its channel it is."""
    registry = _open(store)
    found = services(registry.consumers.all(on_unreadable=note), utc_now())
    if reference is not None:
        wanted = channel_reference(reference)
        found = [service for service in found if _is_wanted(service, wanted)]
    channels = {(service.report.model, service.report.channel) for service in found}
    heads = {channel: _generation(registry, *channel) for channel in channels}
    lines = [_status_line(service, heads) for service in found]
    if output is OutputFormat.JSON:
        print_json(lines)
        return
    print_table(
        ["CONSUMER", "CHANNEL", "SERVES", "GENERATION", "BEHIND", "SINCE", "STATE", "LAST ERROR"],
        [_status_row(service, line) for service, line in zip(found, lines, strict=True)],
    )


def doctor(store: str | None, output: OutputFormat) -> None:
    """Examine the store.

    Raises:
        StoreError: a probe failed.
    """
    opened = open_store(load_settings(store=store).store)
    findings = examine(opened)
    if output is OutputFormat.JSON:
        print_json(
            {
                "store": opened.url,
                "findings": [
                    {"probe": finding.probe, "passed": finding.passed, "detail": finding.detail}
                    for finding in findings
                ],
            }
        )
    else:
        rows = [(item.probe, "pass" if item.passed else "FAIL", item.detail) for item in findings]
        print_table(["PROBE", "RESULT", "DETAIL"], rows, title=opened.url)
    failed = [finding.probe for finding in findings if not finding.passed]
    if failed:
        raise StoreError(f"{opened.url} failed {', '.join(failed)}: do not keep a registry there")


def _open(store: str | None) -> Registry:
    return Registry.open(load_settings(store=store).store)


def _heads(registry: Registry, model: str) -> dict[str, ChannelEntry]:
    heads = {name: registry.channel(model, name).head() for name in registry.channels(model)}
    return {name: head for name, head in heads.items() if head is not None}


def _generation(registry: Registry, model: str, channel: str) -> int | None:
    """The newest generation of a channel a consumer claims to follow, None where it cannot be read."""
    try:
        head = registry.channel(model, channel).head()
    except (UsageError, UntrustedAnswerError) as error:
        note(str(error))
        return None
    return head.generation if head else 0


def _served(head: ChannelEntry) -> str:
    return f"{head.channel}: {head.version}" + (" (held)" if head.held else "")


def _version_row(manifest: Manifest, heads: dict[str, ChannelEntry]) -> tuple[str, ...]:
    serves = [name for name, head in heads.items() if head.version == manifest.version]
    return (
        str(manifest.version),
        ago(manifest.created_at),
        size_of(manifest.blob.size),
        short(manifest.blob.digest),
        str(manifest.lineage.records) if manifest.lineage else "-",
        _metrics(manifest),
        ", ".join(serves) or "-",
    )


def _metrics(manifest: Manifest) -> str:
    metrics = manifest.evaluation.metrics if manifest.evaluation else {}
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())) or "-"


def _manifest_fields(manifest: Manifest, serves: list[str]) -> list[tuple[str, str]]:
    fields = [
        ("model", f"{manifest.model}@{manifest.version}"),
        ("serves", ", ".join(serves) or "nowhere"),
        (
            "created",
            f"{manifest.created_at:%Y-%m-%d %H:%M:%S %Z}, {ago(manifest.created_at)}, by {manifest.actor}",
        ),
        ("file", f"{size_of(manifest.blob.size)}, {manifest.blob.digest}"),
        ("onnx", f"opset {manifest.opset}, IR version {manifest.ir_version}"),
        ("inputs", "; ".join(_tensor(spec) for spec in manifest.inputs)),
        ("outputs", "; ".join(_tensor(spec) for spec in manifest.outputs)),
    ]
    optional = {
        "classes": ", ".join(str(label) for label in manifest.classes or ()),
        "estimator": " ".join(part for part in (manifest.framework, manifest.estimator) if part),
        "lineage": _lineage(manifest),
        "metrics": _metrics(manifest) if manifest.evaluation and manifest.evaluation.metrics else "",
        "parent": f"{manifest.model}@{manifest.parent_version}" if manifest.parent_version else "",
        "labels": ", ".join(f"{name}={value}" for name, value in sorted(manifest.labels.items())),
    }
    return fields + [(name, value) for name, value in optional.items() if value]


def _tensor(spec: TensorSpec) -> str:
    role = f" ({spec.role})" if spec.role else ""
    return f"{spec.name} {spec.dtype}{list(spec.shape)}{role}"


def _lineage(manifest: Manifest) -> str:
    lineage = manifest.lineage
    if lineage is None:
        return ""
    ranges = ", ".join(f"{part.partition}: {part.first} to {part.end}" for part in lineage.offsets)
    newest = f", newest event {ago(lineage.newest_event_time)}" if lineage.newest_event_time else ""
    return (
        f"{lineage.records} records of {lineage.topic} (offsets {ranges}), {lineage.skipped} skipped{newest}"
    )


def _history_row(entry: ChannelEntry, before: int | None) -> tuple[str, ...]:
    change = str(entry.version) if before in {None, entry.version} else f"{before} -> {entry.version}"
    return (
        str(entry.generation),
        f"{entry.at:%Y-%m-%d %H:%M:%S}",
        entry.operation + (" (held)" if entry.held else ""),
        change,
        entry.actor + (" (automatic)" if entry.automatic else ""),
        entry.reason or "-",
    )


def _is_wanted(service: Service, wanted: ModelReference) -> bool:
    report = service.report
    return report.model == wanted.model and wanted.channel in {None, report.channel}


def _status_line(service: Service, heads: dict[tuple[str, str], int | None]) -> dict[str, Any]:
    report = service.report
    head = heads[report.model, report.channel]
    behind = None if head is None else head - (report.generation or 0)
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


def _status_row(service: Service, line: dict[str, Any]) -> tuple[str, ...]:
    report = service.report
    return (
        service.heartbeat.consumer,
        f"{report.model}:{report.channel}",
        f"{report.model}@{report.version}" if report.version else "nothing yet",
        str(report.generation or "-"),
        "?" if line["generations_behind"] is None else str(line["generations_behind"]),
        ago(report.since),
        f"gone, last seen {ago(service.heartbeat.at)}" if service.stale else report.phase,
        report.last_error or "-",
    )
