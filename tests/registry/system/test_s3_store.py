from __future__ import annotations

import pytest

from ferryline.registry.doctor.examination import examine
from ferryline.registry.doctor.findings import Outcome
from ferryline.registry.errors import StoreDeniedError
from ferryline.registry.stores import Store, open_store
from tests.registry.store_conformance import StoreConformance


class TestS3Store(StoreConformance):
    @pytest.fixture
    def store(self, minio_store: Store) -> Store:
        return minio_store


def test_doctor_trusts_minio(minio_store: Store) -> None:
    findings = examine(minio_store)
    assert [finding.probe for finding in findings if finding.outcome is not Outcome.PASSED] == []
    assert list(minio_store.list("doctor/")) == []


def test_a_missing_bucket_and_wrong_credentials_are_told_apart(
    minio_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = minio_store_url.partition("?")[2]
    with pytest.raises(StoreDeniedError, match="NoSuchBucket"):
        open_store(f"s3://no-such-bucket?{query}").put("a", b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(StoreDeniedError, match="SignatureDoesNotMatch"):
        open_store(minio_store_url).get("a")
