"""What differs between two versions, from their manifests; their weights by whoever can read the files.

The catalogue reads no ONNX: the package that can registers a comparer under the entry-point group
`ferryline.weights`, as it does for inspection (`ferryline.registry.inspection`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict

from ferryline.registry.contract import contract_break
from ferryline.registry.documents import Manifest
from ferryline.registry.extras import Extra, require_extra

GROUP = "ferryline.weights"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldChange(_Part):
    """One thing that is said otherwise; None where a version says nothing of it."""

    field: str
    a: Any = None
    b: Any = None


class MetricChange(_Part):
    """One metric; `change` is b - a, None where one of them lacks it."""

    metric: str
    a: float | None = None
    b: float | None = None
    change: float | None = None


class ContractDiff(_Part):
    """Whether callers of `a` could be served by `b`; `fault` is the first thing they would notice."""

    compatible: bool
    fault: str | None = None


class TensorChange(_Part):
    """One parameter tensor; norms are Euclidean, `largest` is the greatest absolute change of one number."""

    name: str
    change: Literal["changed", "added", "removed", "reshaped"]
    shape: tuple[int, ...]
    norm_a: float | None = None
    norm_b: float | None = None
    norm_change: float | None = None
    largest: float | None = None


class WeightsDiff(_Part):
    """The parameters that changed, the greatest change first; `unread` could not be compared."""

    tensors: tuple[TensorChange, ...] = ()
    unchanged: int = 0
    unread: tuple[str, ...] = ()


class Side(_Part):
    """One of the two versions."""

    model: str
    version: int
    digest: str
    size: int


class VersionDiff(_Part):
    """All that differs; `weights` is None where nothing here can compare them, and `note` says why."""

    a: Side
    b: Side
    contract: ContractDiff
    fields: tuple[FieldChange, ...]
    metrics: tuple[MetricChange, ...]
    weights: WeightsDiff | None = None
    weights_note: str | None = None


WeightsComparer = Callable[[bytes, bytes], WeightsDiff]
"""Compares the parameters of two model files; raises `RefusedError` where one is no model."""


def load_weights_comparer(model_format: str = "onnx") -> WeightsComparer | None:
    """Returns the comparer of a format, or None where none is registered.

    Raises:
        MissingExtraError: what reads such files is not installed.
    """
    for point in entry_points(group=GROUP, name=model_format):
        try:
            return cast("WeightsComparer", point.load())
        except ModuleNotFoundError:
            require_extra(Extra.RUNTIME, "comparing weights", ["numpy", "onnx"])
            raise
    return None


def compare(a: Manifest, b: Manifest) -> VersionDiff:
    """What the manifests say otherwise of `b` than of `a`."""
    fault = contract_break(a, b)
    old, new = _facts(a), _facts(b)
    return VersionDiff(
        a=_side(a),
        b=_side(b),
        contract=ContractDiff(compatible=fault is None, fault=fault),
        fields=tuple(
            FieldChange(field=name, a=old.get(name), b=new.get(name))
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name)
        ),
        metrics=_metrics(a, b),
    )


def _side(manifest: Manifest) -> Side:
    return Side(
        model=manifest.model,
        version=manifest.version,
        digest=manifest.blob.digest,
        size=manifest.blob.size,
    )


def _facts(manifest: Manifest) -> dict[str, Any]:
    lineage = manifest.lineage
    parity = manifest.evaluation.parity if manifest.evaluation else None
    facts: dict[str, Any] = {
        "opset": manifest.opset,
        "ir_version": manifest.ir_version,
        "producer": manifest.producer,
        "framework": manifest.framework,
        "estimator": manifest.estimator,
        "size": manifest.blob.size,
        "classes": list(manifest.classes) if manifest.classes is not None else None,
        "actor": manifest.actor,
        "parent_version": manifest.parent_version,
        "parity.max_score_difference": parity.max_score_difference if parity else None,
        "lineage.topic": lineage.topic if lineage else None,
        "lineage.topic_id": lineage.topic_id if lineage else None,
        "lineage.records": lineage.records if lineage else None,
        "lineage.skipped": lineage.skipped if lineage else None,
        "lineage.newest_event_time": lineage.newest_event_time if lineage else None,
    }
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        facts |= {
            f"{kind}.{spec.name}": f"{spec.dtype}{list(spec.shape)}"
            + (f" ({spec.role})" if spec.role else "")
            for spec in specs
        }
    for part in lineage.offsets if lineage else ():
        facts[f"lineage.offsets.{part.partition}"] = [part.first, part.end]
    return facts | {f"label.{name}": value for name, value in manifest.labels.items()}


def _metrics(a: Manifest, b: Manifest) -> tuple[MetricChange, ...]:
    old, new = _metrics_of(a), _metrics_of(b)
    return tuple(
        MetricChange(
            metric=name,
            a=old.get(name),
            b=new.get(name),
            change=new[name] - old[name] if name in old and name in new else None,
        )
        for name in sorted({*old, *new})
    )


def _metrics_of(manifest: Manifest) -> Mapping[str, float]:
    return manifest.evaluation.metrics if manifest.evaluation else {}
