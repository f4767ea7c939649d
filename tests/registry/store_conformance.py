"""What every store must do, the race included. Subclass it and give a `store` fixture."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.errors import UsageError
from registry.stores import ObjectMissingError, Store

WRITERS = 16


class StoreConformance:
    rounds = 20

    def test_a_missing_object_is_missing(self, store: Store) -> None:
        with pytest.raises(ObjectMissingError, match="models/none"):
            store.get("models/none")
        with pytest.raises(ObjectMissingError):
            store.get_if_changed("models/none", "any")

    def test_a_read_shows_the_newest_write(self, store: Store) -> None:
        store.put("consumers/a.json", b"first")
        first = store.get("consumers/a.json")
        store.put("consumers/a.json", b"second")
        second = store.get("consumers/a.json")
        assert (first.data, second.data) == (b"first", b"second")
        assert first.etag != second.etag

    def test_a_conditional_read_tells_changed_from_unchanged(self, store: Store) -> None:
        store.put("hint.json", b"1")
        seen = store.get("hint.json")
        assert store.get_if_changed("hint.json", seen.etag) is None
        store.put("hint.json", b"2")
        changed = store.get_if_changed("hint.json", seen.etag)
        assert changed is not None
        assert changed.data == b"2"

    def test_put_if_absent_writes_once(self, store: Store) -> None:
        assert store.put_if_absent("log/0000000001.json", b"first") is True
        assert store.put_if_absent("log/0000000001.json", b"second") is False
        assert store.get("log/0000000001.json").data == b"first"

    def test_large_and_empty_objects(self, store: Store) -> None:
        large = bytes(range(256)) * 4096 * 8
        assert store.put_if_absent("blobs/large", large)
        assert store.get("blobs/large").data == large
        store.put("blobs/empty", b"")
        assert store.get("blobs/empty").data == b""

    def test_a_listing_is_complete_and_in_order(self, store: Store) -> None:
        names = [f"log/{number:010d}.json" for number in range(1, 31)]
        for name in reversed(names):
            store.put_if_absent(name, name.encode())
        store.put("logs/elsewhere", b"")
        listed = list(store.list("log/"))
        assert [item.key for item in listed] == names
        assert {item.size for item in listed} == {len(names[0])}
        assert [item.key for item in store.list("log/", after=names[26])] == names[27:]
        assert list(store.list("nothing/")) == []
        assert [item.key for item in store.list("log/000000001")] == names[9:19]

    def test_delete_is_idempotent(self, store: Store) -> None:
        store.put("consumers/b.json", b"x")
        store.delete("consumers/b.json")
        store.delete("consumers/b.json")
        with pytest.raises(ObjectMissingError):
            store.get("consumers/b.json")

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a b", "ä", "a" * 600]
    )
    def test_keys_that_some_store_would_change_are_refused(self, store: Store, key: str) -> None:
        with pytest.raises(UsageError):
            store.put(key, b"x")
        with pytest.raises(UsageError):
            store.put_if_absent(key, b"x")

    def test_one_of_many_racing_writers_wins(self, store: Store) -> None:
        barrier = threading.Barrier(WRITERS)

        def write(key: str, writer: int) -> bool:
            barrier.wait(timeout=30)
            return store.put_if_absent(key, str(writer).encode() * 100)

        with ThreadPoolExecutor(WRITERS) as pool:
            for turn in range(self.rounds):
                key = f"race/{turn:010d}.json"
                created = list(pool.map(lambda writer, key=key: write(key, writer), range(WRITERS)))
                assert created.count(True) == 1
                assert store.get(key).data == str(created.index(True)).encode() * 100
