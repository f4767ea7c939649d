"""`ferry` on a real object store: what goes wrong with credentials and buckets, and large files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import urllib3
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin

from ferryline.deploy.stack.addresses import Addresses
from ferryline.registry import ModelFacts, Registry, transfer
from ferryline.registry.cli.watching import Watcher
from ferryline.registry.documents import TensorSpec
from tests.registry.ferry import Ferry

FACTS = ModelFacts(
    opset=17, ir_version=8,
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 1)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, 1)),),
)  # fmt: skip


@pytest.fixture
def store_url(minio_store_url: str) -> str:
    return minio_store_url


@pytest.fixture
def two_versions(store_url: str) -> Registry:
    registry = Registry.open(store_url)
    for content in (b"one", b"two"):
        registry.publish("digits", content, FACTS)
    registry.promote("digits", 1)
    return registry


def test_an_empty_bucket_is_an_empty_registry(ferry: Ferry) -> None:
    listed = ferry("list", "-o", "json")
    assert (listed.code, listed.json, listed.err) == (0, [], "")
    assert ferry("status", "-o", "json").json == []
    assert ferry("show", "digits").code == 3


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
        ({"AWS_SESSION_TOKEN": "no-token"}, "expired or were withdrawn"),
    ],
    ids=["secret", "key", "token"],
)
@pytest.mark.parametrize("verb", [["list"], ["promote", "digits@1"]], ids=["read", "write"])
def test_wrong_credentials_are_named(
    ferry: Ferry, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], word: str, verb: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused = ferry(*verb)
    assert (refused.code, refused.out, refused.err.count("\n")) == (6, "", 1)
    assert word in refused.err
    assert "AWS_ACCESS_KEY_ID" in refused.err


def test_a_missing_bucket_and_a_wrong_protocol_are_named(ferry: Ferry, store_url: str) -> None:
    query = store_url.partition("?")[2]
    missing = ferry("list", "--store", f"s3://no-such-bucket?{query}")
    assert (missing.code, "make the bucket" in missing.err) == (6, True)
    tls = ferry("list", "--store", store_url.replace("endpoint=http:", "endpoint=https:"))
    assert (tls.code, "endpoint=http://" in tls.err) == (6, True)
    down = ferry("list", "--store", "s3://models?endpoint=http://127.0.0.1:1")
    assert (down.code, "is the server up" in down.err) == (6, True)


def test_credentials_that_are_withdrawn_do_not_end_a_watch(
    minio: Addresses, store_url: str, two_versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = urllib3.PoolManager(retries=False)
    admin = MinioAdmin(
        endpoint=store_url.rpartition("//")[2],
        credentials=StaticProvider(minio.access_key, minio.secret_key),
        secure=False,
        http_client=pool,
    )
    admin.user_add("watcher", "watcher-secret")
    admin.attach_policy(["readwrite"], "watcher")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "watcher")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "watcher-secret")
        watcher = Watcher(Registry.open(store_url), None)
    assert watcher.look().fault is None
    admin.user_remove("watcher")
    pool.clear()
    faulty = watcher.look()
    assert "InvalidAccessKeyId" in (faulty.fault or "")
    assert faulty.entries, "what was seen last stays in sight"


def test_large_files_tell_how_far_they_are(store_url: str, tmp_path: Path) -> None:
    registry, data = Registry.open(store_url), os.urandom(transfer.WORTH_SHOWING + 1)
    told: list[tuple[int, int]] = []
    with transfer.observed(lambda moved, size: told.append((moved, size))):
        manifest = registry.publish("large", data, FACTS)
        assert told[-1] == (len(data), len(data))
        up = len(told)
        assert registry.versions("large").load(manifest) == data
    assert told[-1] == (len(data), len(data))
    assert up > 2
    assert len(told) - up > 2
    assert [moved for moved, _ in told[:up]] == sorted(moved for moved, _ in told[:up])


def test_pull_from_minio(ferry: Ferry, two_versions: Registry, tmp_path: Path) -> None:
    assert ferry("pull", "digits@2", "--to", str(tmp_path / "x")).code == 0
    assert (tmp_path / "x").read_bytes() == b"two"
    key = f"blobs/sha256/{two_versions.versions('digits').get(2).blob.digest.removeprefix('sha256:')}"
    two_versions.store.delete(key)
    assert ferry("pull", "digits@2", "--to", str(tmp_path / "y")).code == 6
