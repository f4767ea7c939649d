"""`ferry diff`."""

from __future__ import annotations

from typing import Any

from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.opening import open_registry
from ferryline.registry.cli.output import print_fields, print_gap, print_json, print_table, size_of
from ferryline.registry.cli.progress import transfer_bar
from ferryline.registry.diff import TensorChange, VersionDiff, WeightsDiff, compare, load_weights_comparer
from ferryline.registry.documents import Manifest
from ferryline.registry.errors import FerryError
from ferryline.registry.names import ModelReference, parse_version


def diff(store: str | None, output: OutputFormat, a: str, b: str, *, weights: bool, limit: int) -> None:
    """Show what is other in `b` than in `a`; `b` may be a bare version of the same model."""
    first = ModelReference.parse(a)
    second = ModelReference(first.model, parse_version(b)) if b.isdigit() else ModelReference.parse(b)
    registry = open_registry(store)
    old, new = registry.resolve(first), registry.resolve(second)
    found = compare(old, new)
    if weights:
        compared, note = _weights(registry, old, new)
        found = found.model_copy(update={"weights": compared, "weights_note": note})
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        _print(found, limit)


def _weights(registry: Registry, old: Manifest, new: Manifest) -> tuple[WeightsDiff | None, str | None]:
    """What cannot be compared must not hide what can, so a fault becomes a note."""
    if old.blob.digest == new.blob.digest:
        return WeightsDiff(), "the two are the same file"
    try:
        comparer = load_weights_comparer()
        if comparer is None:
            return None, "no comparer for ONNX files is registered"
        with transfer_bar("downloading"):
            files = [registry.versions(manifest.model).load(manifest) for manifest in (old, new)]
        return comparer(*files), None
    except FerryError as error:
        return None, str(error)


def _print(found: VersionDiff, limit: int) -> None:
    contract = "the same for callers" if found.contract.compatible else f"broken: {found.contract.fault}"
    print_fields(
        [
            ("a", f"{found.a.model}@{found.a.version} ({size_of(found.a.size)}, {found.a.digest})"),
            ("b", f"{found.b.model}@{found.b.version} ({size_of(found.b.size)}, {found.b.digest})"),
            ("contract", contract),
        ]
    )
    _section("FIELD", [(item.field, _text(item.a), _text(item.b)) for item in found.fields])
    _section(
        "METRIC",
        [(item.metric, _text(item.a), _text(item.b), _signed(item.change)) for item in found.metrics],
    )
    if found.weights is not None and found.weights.tensors:
        _print_weights(found.weights, limit)
    if found.weights_note:
        print_fields([("weights", found.weights_note)])


def _print_weights(weights: WeightsDiff, limit: int) -> None:
    print_gap()
    print_table(
        ["WEIGHTS", "CHANGE", "SHAPE", "NORM A", "NORM B", "NORM OF CHANGE", "LARGEST CHANGE"],
        [_tensor(tensor) for tensor in weights.tensors[:limit]],
    )
    more = len(weights.tensors) - limit
    told = [f"{weights.unchanged} unchanged"]
    told += [f"{more} more changed (-n shows more)"] if more > 0 else []
    told += [f"{len(weights.unread)} not readable as numbers"] if weights.unread else []
    print_fields([("tensors", ", ".join(told))])


def _tensor(tensor: TensorChange) -> tuple[str, ...]:
    numbers = (tensor.norm_a, tensor.norm_b, tensor.norm_change, tensor.largest)
    return (tensor.name, tensor.change, str(list(tensor.shape)), *(_text(number) for number in numbers))


def _section(heading: str, rows: list[tuple[str, ...]]) -> None:
    if rows:
        print_gap()
        print_table([heading, "A", "B", "CHANGE"][: len(rows[0])], rows)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.6g}"
