"""`ferry gc | verify | refusals`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from pydantic import Field

from ferryline.registry import opening
from ferryline.registry.audit.findings import Audit, Finding, Severity
from ferryline.registry.audit.walk import verify as walk
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.output import ago, note, print_json, print_table, size_of
from ferryline.registry.cli.upkeep_progress import GarbageProgress, WalkProgress
from ferryline.registry.collection import File, Report, Retention
from ferryline.registry.collector import Collector
from ferryline.registry.durations import parse_duration
from ferryline.registry.errors import NotFoundError, StoreError, UsageError
from ferryline.registry.refusals import RefusalRecord, Refusals
from ferryline.registry.settings import Seconds, Settings, load_settings_of

DAY = 86_400.0


class UpkeepSettings(Settings):
    """What upkeep takes from `FERRY_*` variables and the config file besides."""

    gc_keep_versions: int = Field(default=20, ge=1)
    gc_rollback_depth: int = Field(default=10, ge=0)
    gc_grace: Seconds = DAY
    keep_refusals: int = Field(default=1_000, ge=1)
    refusals_for: Seconds = 90 * DAY

    def retention(self) -> Retention:
        """How much is kept.

        Raises:
            UsageError: the grace is too short.
        """
        return Retention(
            keep_versions=self.gc_keep_versions,
            rollback_depth=self.gc_rollback_depth,
            grace=timedelta(seconds=self.gc_grace),
            keep_refusals=self.keep_refusals,
            refusals_for=timedelta(seconds=self.refusals_for),
        )


# --- gc -------------------------------------------------------------------------------------------


def gc(
    store: str | None,
    output: OutputFormat,
    *,
    dry_run: bool,
    keep_versions: int | None,
    rollback_depth: int | None,
    grace: str | None,
) -> None:
    """Collect garbage, or tell what would be collected.

    Raises:
        UsageError: the grace is no span of time, or too short.
        ConflictError: another run took over.
        StoreError: the store does not answer, or something is damaged; then nothing was deleted.
    """
    settings = _settings(
        store,
        gc_keep_versions=keep_versions,
        gc_rollback_depth=rollback_depth,
        gc_grace=None if grace is None else _seconds(grace),
    )
    registry = opening.open_registry(settings)
    with GarbageProgress() as progress:
        collector = Collector(registry, settings.retention(), observer=progress)
        report = collector.preview() if dry_run else collector.run()
    if output is OutputFormat.JSON:
        print_json(_garbage_document(registry.store.url, report))
    else:
        _print_garbage(report)


def _garbage_document(store: str, report: Report) -> dict[str, Any]:
    return {
        "store": store,
        "dry_run": report.dry_run,
        "collected": [_file(file) for file in report.collected],
        "marked": [_file(file) for file in report.marked],
        "waiting": [_file(file) for file in report.waiting],
        "bytes_collected": _bytes(report.collected),
        "bytes_marked": _bytes(report.marked),
        "bytes_waiting": _bytes(report.waiting),
        "files_spared": report.spared,
        "files_kept": report.kept_files,
        "bytes_kept": report.kept_bytes,
        "heartbeats": report.heartbeats,
        "probes": report.probes,
        "refusals": report.refusals,
    }


def _file(file: File) -> dict[str, Any]:
    return {
        "digest": file.digest,
        "size": file.size,
        "versions": list(file.versions),
        "marked_at": file.marked_at,
    }


def _print_garbage(report: Report) -> None:
    goes, comes = ("WOULD FREE", "WOULD MARK") if report.dry_run else ("FREED", "MARKED")
    columns = [_by_model(files) for files in (report.collected, report.marked, report.waiting)]
    models = sorted(set().union(*columns))
    rows = [(model, *(_amount(column.get(model, [])) for column in columns)) for model in models]
    total = ("total", *map(_amount, (report.collected, report.marked, report.waiting)))
    print_table(["MODEL", goes, comes, "WAITING"], [*rows, total])
    note(f"kept: {_count(report.kept_files, 'file')}, {size_of(report.kept_bytes)}")
    if report.spared:
        note(f"spared: {_count(report.spared, 'file')}, needed again or left for the next run")
    chaff = [
        (report.heartbeats, "heartbeat"),
        (report.probes, "probe"),
        (report.refusals, "old refusal"),
    ]
    if told := ", ".join(_count(count, what) for count, what in chaff if count):
        note(f"{'would remove' if report.dry_run else 'removed'} {told}")
    if report.marked or report.waiting:
        note("what is marked goes in a later run, once it has been garbage for the grace period")


def _by_model(files: Iterable[File]) -> dict[str, list[File]]:
    found: dict[str, list[File]] = {}
    for file in files:
        model = file.versions[0].partition("@")[0] if file.versions else "(no version)"
        found.setdefault(model, []).append(file)
    return found


def _amount(files: list[File]) -> str:
    return f"{len(files)} ({size_of(_bytes(files))})" if files else "-"


def _bytes(files: Iterable[File]) -> int:
    return sum(file.size for file in files)


# --- verify ---------------------------------------------------------------------------------------


def verify(store: str | None, output: OutputFormat, model: str | None) -> None:
    """Walk the registry and tell all that is wrong.

    Raises:
        NotFoundError: there is no such model.
        StoreError: something is damaged.
    """
    registry = opening.open_registry(_settings(store))
    with WalkProgress() as progress:
        audit = walk(registry, model=model, observer=progress)
    if output is OutputFormat.JSON:
        print_json(_audit_document(registry.store.url, model, audit))
    else:
        _print_audit(audit)
    if audit.damaged:
        raise StoreError(
            f"{registry.store.url} is damaged in {_count(len(audit.damaged), 'place')}, the first: "
            f"{audit.damaged[0].where}: {audit.damaged[0].what}"
        )


def _audit_document(store: str, model: str | None, audit: Audit) -> dict[str, Any]:
    return {
        "store": store,
        "model": model,
        "clean": audit.clean,
        "models": audit.models,
        "versions": audit.versions,
        "entries": audit.entries,
        "files": audit.files,
        "bytes": audit.bytes,
        "findings": [_finding(finding) for finding in audit.findings],
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity,
        "where": finding.where,
        "what": finding.what,
        "remedy": finding.remedy,
    }


def _print_audit(audit: Audit) -> None:
    if audit.findings:
        print_table(
            ["SEVERITY", "WHERE", "WHAT", "REMEDY"],
            [(_word(each.severity), each.where, each.what, each.remedy) for each in audit.findings],
        )
    note(
        f"looked at {_count(audit.models, 'model')}, {_count(audit.versions, 'version')}, "
        f"{_count(audit.entries, 'channel entry', 'channel entries')} and {_count(audit.files, 'file')} "
        f"({size_of(audit.bytes)}): {'nothing is damaged' if audit.clean else 'DAMAGED'}"
    )


def _word(severity: Severity) -> str:
    return severity.upper() if severity is Severity.DAMAGED else severity.value


# --- refusals -------------------------------------------------------------------------------------


def refusals(store: str | None, output: OutputFormat, model: str, limit: int) -> None:
    """The newest refusals of a model, newest first.

    Raises:
        NotFoundError: there is no such model.
    """
    registry = opening.open_registry(_settings(store))
    records = Refusals(registry.store, model).newest(limit, on_unreadable=note)
    if not records and not registry.versions(model).newest():
        raise NotFoundError(f"no model {model} here; `ferry list` shows what there is")
    if output is OutputFormat.JSON:
        print_json(records)
        return
    print_table(
        ["AT", "GATE", "VERSION", "CHANNEL", "REFUSED BY", "REASON", "REMEDY"],
        [_refusal_row(record) for record in records],
    )


def _refusal_row(record: RefusalRecord) -> tuple[str, ...]:
    return (
        ago(record.at),
        record.gate,
        str(record.version or "-"),
        record.channel or "-",
        record.consumer,
        record.reason,
        record.remedy or "-",
    )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _settings(store: str | None, **flags: Any) -> UpkeepSettings:
    return load_settings_of(UpkeepSettings, {"store": store, **flags})


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--grace: {error}") from error
