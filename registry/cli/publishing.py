"""`ferry publish`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ferryline.registry.cli.changing import entry_fields, telling_the_winner
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.golden import read_golden
from ferryline.registry.cli.opening import open_registry
from ferryline.registry.cli.output import note, print_fields, print_json, short, size_of
from ferryline.registry.cli.progress import transfer_bar
from ferryline.registry.documents import ChannelEntry, Evaluation, Manifest, TrainingRecord
from ferryline.registry.errors import UsageError
from ferryline.registry.inspection import load_inspector
from ferryline.registry.names import require_name
from ferryline.registry.refusals import PUBLISH

T = TypeVar("T")


def publish(
    store: str | None,
    output: OutputFormat,
    model: str,
    file: Path,
    *,
    labels: Sequence[str],
    metrics: Sequence[str],
    golden: Path | None,
    promote_to: str | None,
    reason: str,
    allow_contract_change: bool,
) -> None:
    """Publish `file` as the next version of `model`, and promote it to `promote_to` if that is given."""
    require_name(model, what="model")
    if promote_to is not None:
        require_name(promote_to, what="channel")
    training = TrainingRecord(
        labels=_pairs(labels, "--label", str),
        evaluation=Evaluation(metrics=_pairs(metrics, "--metric", _finite)) if metrics else None,
        golden=read_golden(golden) if golden else None,
    )
    data = _read(file)
    inspect = load_inspector()
    registry = open_registry(store)
    with registry.refusals(model).recording(consumer=PUBLISH, data=data):
        facts = inspect(data, training.golden)
    with transfer_bar("uploading"):
        manifest = registry.publish(model, data, facts, training)
    if promote_to is None:
        _print(output, manifest, None)
        return
    note(f"published {model}@{manifest.version}")
    with telling_the_winner(registry, model, promote_to):
        entry = registry.promote(
            model, manifest.version, promote_to, reason=reason, allow_contract_change=allow_contract_change
        )
    _print(output, manifest, entry)


def _print(output: OutputFormat, manifest: Manifest, entry: ChannelEntry | None) -> None:
    if output is OutputFormat.JSON:
        print_json({"manifest": manifest, "entry": entry})
        return
    print_fields(
        [
            ("published", f"{manifest.model}@{manifest.version}"),
            ("digest", short(manifest.blob.digest)),
            ("size", size_of(manifest.blob.size)),
            ("opset", str(manifest.opset)),
            *(entry_fields(entry) if entry is not None else []),
        ]
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _pairs(texts: Sequence[str], option: str, convert: Callable[[str], T]) -> dict[str, T]:
    pairs: dict[str, T] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            converted = convert(value)
        except ValueError:
            name = ""
        if not name or "=" not in text:
            raise UsageError(f"{option} takes NAME=VALUE, not {text!r}")
        pairs[name] = converted
    return pairs
