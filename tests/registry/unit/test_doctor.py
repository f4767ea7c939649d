from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from registry.doctor import examine
from registry.stores import Listed, Stored
from registry.stores.memory import MemoryStore
from tests.faulty_store import FaultyStore


class Overwriting(MemoryStore):
    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class SilentlyOverwriting(MemoryStore):
    def put_if_absent(self, key: str, data: bytes) -> bool:
        created = super().put_if_absent(key, data)
        if not created:
            self.put(key, data)
        return created


class Stale(MemoryStore):
    def put(self, key: str, data: bytes) -> None:
        super().put_if_absent(key, data)


class Forgetful(MemoryStore):
    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        return iter(list(super().list(prefix, after=after))[1:])


class Immortal(MemoryStore):
    def delete(self, key: str) -> None:
        pass


class Unconditional(MemoryStore):
    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        return self.get(key)


class Skewed(MemoryStore):
    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for listed in super().list(prefix, after=after):
            yield replace(listed, modified_at=listed.modified_at - timedelta(hours=1))


def test_an_honest_store_passes_and_keeps_nothing() -> None:
    store = MemoryStore()
    assert all(finding.passed for finding in examine(store))
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("store", "probe"),
    [
        (Overwriting(), "put-if-absent twice"),
        (Overwriting(), "put-if-absent race"),
        (SilentlyOverwriting(), "put-if-absent twice"),
        (Stale(), "read after write"),
        (Forgetful(), "listing"),
        (Immortal(), "deletion"),
        (Unconditional(), "conditional read"),
        (Skewed(), "clock"),
    ],
)
def test_a_store_that_cheats_is_caught(store: MemoryStore, probe: str) -> None:
    assert probe in {finding.probe for finding in examine(store) if not finding.passed}


def test_a_store_that_is_down_fails_every_probe_and_raises_nothing() -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    assert not any(finding.passed for finding in examine(store))
