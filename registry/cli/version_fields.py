"""A version as `ferry show` tells it to a person."""

from __future__ import annotations

from ferryline.registry import garbage
from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.output import ago, size_of
from ferryline.registry.documents import Manifest, TensorSpec
from ferryline.registry.errors import StoreError


def metrics_of(manifest: Manifest) -> str:
    """A version's metrics, in a line."""
    metrics = manifest.evaluation.metrics if manifest.evaluation else {}
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())) or "-"


def version_fields(registry: Registry, manifest: Manifest, serves: str) -> list[tuple[str, str]]:
    """All about a version; `serves` names the channels that serve it."""
    fields = [
        ("model", f"{manifest.model}@{manifest.version}"),
        ("serves", serves or "nowhere"),
        (
            "created",
            f"{manifest.created_at:%Y-%m-%d %H:%M:%S %Z}, {ago(manifest.created_at)}, by {manifest.actor}",
        ),
        ("file", f"{size_of(manifest.blob.size)}, {manifest.blob.digest}{_fate(registry, manifest)}"),
        ("onnx", f"opset {manifest.opset}, IR version {manifest.ir_version}"),
        ("inputs", "; ".join(_tensor(spec) for spec in manifest.inputs)),
        ("outputs", "; ".join(_tensor(spec) for spec in manifest.outputs)),
    ]
    optional = {
        "classes": ", ".join(str(label) for label in manifest.classes or ()),
        "estimator": " ".join(part for part in (manifest.framework, manifest.estimator) if part),
        "lineage": _lineage(manifest),
        "metrics": metrics_of(manifest) if manifest.evaluation and manifest.evaluation.metrics else "",
        "golden": _golden(manifest),
        "signed": registry.seal.verdict(manifest),
        "parent": f"{manifest.model}@{manifest.parent_version}" if manifest.parent_version else "",
        "labels": ", ".join(f"{name}={value}" for name, value in sorted(manifest.labels.items())),
    }
    return fields + [(name, value) for name, value in optional.items() if value]


def _golden(manifest: Manifest) -> str:
    if manifest.golden is None:
        return ""
    rows = max((len(rows) for rows in manifest.golden.inputs.values()), default=0)
    return f"{rows} rows whose outputs every consumer checks"


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


def _fate(registry: Registry, manifest: Manifest) -> str:
    """What became of a version's file, empty where it is kept or these credentials may not know."""
    try:
        found = garbage.fate(registry.store, manifest.blob.digest)
    except StoreError:
        return ""
    return "" if found.state is garbage.FileState.KEPT else f", {found}"
