"""The real S3 client over a wire that loses, repeats, cuts and damages what passes: the log decides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from ferryline.deploy.stack.addresses import store_endpoint
from ferryline.registry import Registry
from ferryline.registry.errors import (
    ConflictError,
    OutcomeUnknownError,
    StoreError,
    StoreUnreachableError,
    UntrustedAnswerError,
)
from ferryline.registry.stores import Store, open_store
from tests.registry import wire
from tests.registry.histories import MODEL, facts
from tests.registry.wire import Mishap, Wire

CHANNEL = "channels/production/"


@pytest.fixture
def honest(minio_store: Store) -> Registry:
    """Two versions, of which the first serves since generation 1; straight to the server."""
    registry = Registry(minio_store, actor="honest")
    for number in (1, 2):
        registry.publish(MODEL, b"model %d" % number * 1000, facts())
    registry.promote(MODEL, 1)
    return registry


@pytest.fixture
def proxy(honest: Registry, minio_store_url: str) -> Iterator[Wire]:
    endpoint = store_endpoint(minio_store_url)
    assert endpoint is not None
    with wire.between(urlsplit(endpoint).netloc or endpoint) as made:
        yield made


@pytest.fixture
def registry(proxy: Wire, minio_store_url: str) -> Registry:
    """The same registry, through the proxy."""
    url = minio_store_url.partition("?")[0] + f"?endpoint=http://{proxy.address}"
    return Registry(open_store(url), actor="writer")


def op_ids(honest: Registry) -> list[str]:
    return [entry.op_id for entry in honest.channel(MODEL).history()]


@pytest.mark.parametrize(
    "plan",
    [
        [Mishap.NONE],
        [Mishap.REQUEST_LOST],
        [Mishap.ANSWER_LOST],
        [Mishap.REPEATED],
        [Mishap.BUSY, Mishap.BUSY],
        [Mishap.BUSY_AFTER],
        [Mishap.CONFLICTED],
        [Mishap.ANSWER_LOST, Mishap.REQUEST_LOST, Mishap.BUSY, Mishap.REPEATED],
    ],
    ids=lambda plan: "+".join(mishap.name for mishap in plan),
)
def test_an_entry_is_written_once_whatever_befalls_the_write(
    registry: Registry, honest: Registry, proxy: Wire, plan: list[Mishap]
) -> None:
    proxy.expect("PUT", CHANNEL, *plan)
    entry = registry.promote(MODEL, 2)
    assert proxy.plan == []
    assert op_ids(honest)[1:] == [entry.op_id]


@pytest.mark.parametrize(("mishap", "written"), [(Mishap.REQUEST_LOST, False), (Mishap.ANSWER_LOST, True)])
def test_an_outcome_that_nobody_learns_is_unknown(
    registry: Registry, honest: Registry, proxy: Wire, mishap: Mishap, written: bool
) -> None:
    proxy.expect("PUT", CHANNEL, *[mishap] * 5)
    with pytest.raises(OutcomeUnknownError, match="not known whether"):
        registry.promote(MODEL, 2)
    assert len(op_ids(honest)) == 1 + written
    # so one asks the log, by the generation that one knew
    if written:
        with pytest.raises(ConflictError):
            registry.promote(MODEL, 2, expect=1)
    else:
        assert registry.promote(MODEL, 2, expect=1).generation == 2


@pytest.mark.parametrize(
    "mishap", [Mishap.ANSWER_CUT, Mishap.ANSWER_SHORT, Mishap.ANSWER_FLIPPED, Mishap.REQUEST_LOST]
)
@pytest.mark.parametrize("number", range(5))
def test_a_damaged_answer_to_any_read_of_the_log_spoils_nothing(
    registry: Registry, honest: Registry, proxy: Wire, mishap: Mishap, number: int
) -> None:
    proxy.expect("GET", CHANNEL, *[Mishap.NONE] * number, mishap)
    written: list[str] = []
    with contextlib.suppress(StoreUnreachableError, UntrustedAnswerError):  # nothing was written then
        written.append(registry.promote(MODEL, 2).op_id)
    assert op_ids(honest)[1:] == written
    assert honest.promote(MODEL, 1).generation == 2 + len(written)


@pytest.mark.parametrize("mishap", [Mishap.ANSWER_CUT, Mishap.ANSWER_SHORT, Mishap.ANSWER_FLIPPED])
def test_a_damaged_file_is_never_handed_out(
    registry: Registry, honest: Registry, proxy: Wire, mishap: Mishap
) -> None:
    versions = registry.versions(MODEL)
    manifest = versions.get(2)
    proxy.expect("GET", "blobs/", mishap, mishap)
    with pytest.raises(StoreError):
        versions.load(manifest)
    proxy.expect("GET", "blobs/")
    assert versions.load(manifest) == b"model 2" * 1000


def test_a_listing_that_comes_cut_off_is_an_error_and_no_short_list(registry: Registry, proxy: Wire) -> None:
    for mishap in (Mishap.ANSWER_CUT, Mishap.ANSWER_SHORT):
        proxy.expect("GET", "list-type=2", mishap)
        with pytest.raises(StoreUnreachableError):
            registry.versions(MODEL).numbers()


@pytest.mark.parametrize("mishap", [Mishap.REQUEST_LOST, Mishap.ANSWER_LOST, Mishap.BUSY_AFTER])
def test_a_publish_that_broke_off_leaves_no_half_version_and_may_be_made_again(
    registry: Registry, honest: Registry, proxy: Wire, mishap: Mishap
) -> None:
    proxy.expect("PUT", "blobs/", mishap)
    with pytest.raises(StoreUnreachableError):
        registry.publish(MODEL, b"model 3", facts())
    assert honest.versions(MODEL).numbers() == [1, 2]
    proxy.expect("PUT", "versions/", mishap)
    manifest = registry.publish(MODEL, b"model 3", facts())
    assert honest.versions(MODEL).numbers() == [1, 2, 3]
    assert honest.versions(MODEL).load(manifest) == b"model 3"


def test_a_hint_that_is_lost_on_the_way_changes_nothing(
    registry: Registry, honest: Registry, proxy: Wire
) -> None:
    proxy.expect("PUT", "hint.json", *[Mishap.REQUEST_LOST] * 20)
    for generation in (2, 3, 4):
        assert registry.promote(MODEL, 2).generation == generation
    assert honest.promote(MODEL, 1).generation == 5
