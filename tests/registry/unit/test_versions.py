from __future__ import annotations

from collections.abc import Iterator

import pytest

from ferryline.registry import keys
from ferryline.registry.documents import ModelFacts, TrainingRecord
from ferryline.registry.errors import DigestMismatchError, UsageError
from ferryline.registry.stores import Listed
from ferryline.registry.stores.memory import MemoryStore
from ferryline.registry.versions import Versions

FACTS = ModelFacts(opset=17, ir_version=8, inputs=(), outputs=())


class Tallied(MemoryStore):
    """Counts the lines that it lists."""

    lines = 0

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for listed in super().list(prefix, after=after):
            self.lines += 1
            yield listed


def with_versions(count: int) -> tuple[Tallied, Versions]:
    store = Tallied()
    versions = Versions(store, "digits")
    for number in range(count):
        versions.publish(str(number).encode(), FACTS, actor="tester")
    return store, versions


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(0, 3, []), (2, 3, [2, 1]), (3, 3, [3, 2, 1]), (30, 3, [30, 29, 28])],
)
def test_the_newest_versions_newest_first(count: int, limit: int, expected: list[int]) -> None:
    _, versions = with_versions(count)
    assert versions.newest_numbers(limit) == expected


def test_only_the_end_of_a_long_log_is_listed() -> None:
    store, versions = with_versions(200)
    store.lines = 0
    assert versions.newest_numbers(5) == [200, 199, 198, 197, 196]
    assert store.lines <= 6


def test_missing_versions_are_passed_over() -> None:
    store, versions = with_versions(10)
    store.delete(f"{keys.versions('digits')}0000000009.json")
    assert versions.newest_numbers(3) == [10, 8]


def test_a_file_of_another_size_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    store, versions = with_versions(1)
    manifest = versions.get(1)
    store.put(keys.blob(manifest.blob.digest), bytes(1_000))
    monkeypatch.setattr(store, "get", lambda key: pytest.fail(f"{key} was read"))
    with pytest.raises(DigestMismatchError, match="has 1000 bytes instead of 1"):
        versions.load(manifest)


def test_no_manifest_is_written_that_nobody_could_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.registry.stores.base.LARGEST_DOCUMENT", 10_000)
    store, versions = with_versions(0)
    many = TrainingRecord(labels={"notes": "x" * 10_000})
    with pytest.raises(UsageError, match="more than any document"):
        versions.publish(b"model", FACTS, many, actor="tester")
    assert list(store.list("")) == []
