from __future__ import annotations

from typing import Any

import pytest

from ferryline.registry.diff import compare
from ferryline.registry.documents import Blob, Evaluation, Lineage, Manifest, OffsetRange, TensorSpec, utc_now
from tests.registry.ferry import Ferry

INPUT = TensorSpec(name="input", dtype="float32", shape=(-1, 4))
OUTPUT = TensorSpec(name="label", dtype="int64", shape=(-1,))


def manifest(version: int, **fields: Any) -> Manifest:
    said: dict[str, Any] = {
        "opset": 17, "ir_version": 8, "inputs": (INPUT,), "outputs": (OUTPUT,), "actor": "a",
        "blob": Blob(digest="sha256:" + f"{version:x}" * 64, size=10),
    }  # fmt: skip
    return Manifest(
        model="digits", version=version, created_at=utc_now(), op_id=str(version), **said | fields
    )


def changes(**fields: Any) -> dict[str, tuple[Any, Any]]:
    found = compare(manifest(1), manifest(2, **fields))
    return {change.field: (change.a, change.b) for change in found.fields}


def test_the_same_differs_in_nothing() -> None:
    found = compare(manifest(1), manifest(2))
    assert (found.fields, found.metrics, found.contract.compatible) == ((), (), True)
    assert (found.a.version, found.b.version) == (1, 2)


def test_what_is_said_otherwise_is_named() -> None:
    assert changes(opset=18) == {"opset": (17, 18)}
    assert changes(labels={"team": "b"}) == {"label.team": (None, "b")}
    assert changes(framework="river", estimator="Tree") == {
        "framework": (None, "river"),
        "estimator": (None, "Tree"),
    }
    assert changes(blob=Blob(digest="sha256:" + "2" * 64, size=12)) == {"size": (10, 12)}


def test_lineage_is_told_by_partition() -> None:
    lineage = Lineage(topic="t", offsets=(OffsetRange(partition=0, first=3, end=9),), records=6)
    told = changes(lineage=lineage)
    assert told["lineage.offsets.0"] == (None, [3, 9])
    assert (told["lineage.topic"], told["lineage.records"]) == ((None, "t"), (None, 6))


def test_metrics_tell_their_change() -> None:
    found = compare(
        manifest(1, evaluation=Evaluation(metrics={"accuracy": 0.9, "gone": 1.0})),
        manifest(2, evaluation=Evaluation(metrics={"accuracy": 0.85, "new": 2.0})),
    )
    told = {metric.metric: (metric.a, metric.b, metric.change) for metric in found.metrics}
    assert told["accuracy"] == (0.9, 0.85, pytest.approx(-0.05))
    assert (told["gone"], told["new"]) == ((1.0, None, None), (None, 2.0, None))


def test_a_broken_contract_is_named() -> None:
    wider = TensorSpec(name="input", dtype="float32", shape=(-1, 5))
    found = compare(manifest(1), manifest(2, inputs=(wider,)))
    assert found.contract.compatible is False
    assert found.contract.fault == "input 'input' had shape [-1, 4] and has [-1, 5]"
    assert found.fields[0].field == "input.input"


@pytest.mark.usefixtures("published")
def test_the_command_on_two_versions(ferry: Ferry) -> None:
    told = ferry("diff", "digits@1", "2")
    assert (told.code, "the same for callers" in told.out) == (0, True)
    assert ferry("diff", "digits@1", "digits:production", "-o", "json").json["b"]["version"] == 3
    assert "the same file" in ferry("diff", "digits@1", "1").out
    assert ferry("diff", "digits@1", "9").code == 3
    assert ferry("diff", "digits@1", "other").code == 3
