"""Garbage collection and `verify` on a real S3 service."""

from __future__ import annotations

import time

import pytest

from ferryline.registry import Registry
from ferryline.registry.audit.findings import Severity
from ferryline.registry.audit.walk import verify
from ferryline.registry.collection import Report, Retention
from ferryline.registry.collector import Collector
from ferryline.registry.documents import ModelFacts, TensorSpec
from ferryline.registry.errors import RefusedError
from ferryline.registry.garbage import FileState, fate, secure
from ferryline.registry.refusals import Refusals
from ferryline.registry.stores import Store

FACTS = ModelFacts(
    opset=17,
    ir_version=8,
    inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)
TIGHT = Retention(keep_versions=2, rollback_depth=1)
DAY_AND_HOUR = 25 * 3_600.0


def a_day_later(registry: Registry) -> Report:
    """A run for which more than a day passes once it has begun: the service's own times cannot be changed."""
    looks = 0

    def monotonic() -> float:
        nonlocal looks
        looks += 1
        return time.monotonic() + (DAY_AND_HOUR if looks > 1 else 0)

    return Collector(registry, TIGHT, monotonic=monotonic).run()


def test_a_whole_life(minio_store: Store) -> None:
    registry = Registry(minio_store, actor="tester")
    for number in range(1, 7):
        registry.publish("digits", b"model %d" % number, FACTS)
    registry.promote("digits", 3)
    assert [file.versions for file in Collector(registry, TIGHT).preview().marked]
    marked = Collector(registry, TIGHT).run()
    assert sorted(file.versions for file in marked.marked) == [("digits@1",), ("digits@2",), ("digits@4",)]
    digests = {number: registry.versions("digits").get(number).blob.digest for number in (1, 2, 4)}

    secure(minio_store, digests[2], what="digits@2")
    registry.promote("digits", 2)
    registry.publish("phishing", b"model 4", FACTS)
    collected = a_day_later(registry)
    assert [file.versions for file in collected.collected] == [("digits@1",)]
    assert fate(minio_store, digests[1]).state is FileState.COLLECTED
    assert fate(minio_store, digests[2]).state is FileState.KEPT

    with pytest.raises(RefusedError, match=r"was collected on .*Publish the same file again"):
        secure(minio_store, digests[1], what="digits@1")
    audit = verify(registry)
    assert (audit.clean, [each.severity for each in audit.findings]) == (True, [Severity.NOTE])

    registry.publish("digits", b"model 1", FACTS)
    secure(minio_store, digests[1], what="digits@1")
    assert registry.promote("digits", 1).version == 1
    assert a_day_later(registry).collected == []
    audit = verify(registry)
    assert (audit.findings, audit.files) == ([], 6)


def test_the_newest_refusals_of_many(minio_store: Store) -> None:
    ledger = Refusals(minio_store, "digits")
    for number in range(60):
        ledger.record(gate="size", reason=str(number), remedy="", consumer="publish")
    assert [record.reason for record in ledger.newest(3)] == ["59", "58", "57"]
