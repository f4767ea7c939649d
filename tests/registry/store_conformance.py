"""What every store must do, the race included. Subclass it and give a `store` fixture."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from ferryline.registry.errors import CorruptDocumentError, UsageError
from ferryline.registry.stores import ObjectMissingError, Store
from tests.support.waiting import DEADLINE

WRITERS = 16
LONG = 2500


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

    def test_what_is_too_large_for_a_document_is_not_read(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ferryline.registry.stores.base.LARGEST_DOCUMENT", 1_000)
        for key in ("consumers/a.json", "blobs/sha256/aa"):
            store.put(key, bytes(1_000))
            assert len(store.get(key).data) == 1_000
            store.put(key, bytes(1_001))
        with pytest.raises(CorruptDocumentError, match=r"consumers/a\.json has 1001 bytes"):
            store.get("consumers/a.json")
        with pytest.raises(CorruptDocumentError):
            store.get_if_changed("consumers/a.json", "any")
        assert len(store.get("blobs/sha256/aa").data) == 1_001

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

    def test_a_conditional_rewrite_replaces_what_was_read_and_nothing_newer(self, store: Store) -> None:
        assert store.put_if_unchanged("hint.json", b"new", '"any"') is False
        store.put("hint.json", b"read")
        read = store.get("hint.json")
        store.put("hint.json", b"newer")
        assert store.put_if_unchanged("hint.json", b"made of what was read", read.etag) is False
        newer = store.get("hint.json")
        assert newer.data == b"newer"
        assert store.put_if_unchanged("hint.json", b"made of the newer", newer.etag) is True
        assert store.get("hint.json").data == b"made of the newer"
        store.delete("hint.json")
        assert store.put_if_unchanged("hint.json", b"again", newer.etag) is False
        assert list(store.list("")) == []

    def test_of_many_conditional_rewrites_none_is_lost(self, store: Store) -> None:
        store.put("hint.json", b"0")

        def count(_: int) -> None:
            while True:
                seen = store.get("hint.json")
                if store.put_if_unchanged("hint.json", b"%d" % (int(seen.data) + 1), seen.etag):
                    return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(24)))
        assert store.get("hint.json").data == b"24"

    def test_the_stores_time_is_that_of_its_listings(self, store: Store) -> None:
        store.put("consumers/a.json", b"x")
        (listed,) = store.list("consumers/")
        # S3 tells its time in whole seconds
        assert store.now() - listed.modified_at > timedelta(seconds=-2)

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

    def test_a_long_listing_is_complete_however_it_is_paged(self, store: Store) -> None:
        # S3 gives at most 1,000 keys in one answer
        names = [f"log/{number:010d}.json" for number in range(1, LONG + 1)]
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda name: store.put_if_absent(name, b"x"), names))
        assert [item.key for item in store.list("log/")] == names
        for after in (1, 999, 1000, 1001, 2000, LONG - 1, LONG):
            assert [item.key for item in store.list("log/", after=names[after - 1])] == names[after:]
        assert [item.key for item in store.list("log/0000002")] == names[1999:]
        assert list(store.folders("")) == ["log"]
        assert list(store.folders("log/")) == []
        some = iter(store.list("log/"))
        assert [next(some).key for _ in range(3)] == names[:3]

    def test_a_listing_begins_after_any_text_and_not_only_after_a_key(self, store: Store) -> None:
        names = ["log/0000000001.json", "log/0000000003.json", "log/0000000003.json.bak", "log/1/x", "log/a"]
        for name in names:
            store.put(name, b"x")
        assert [item.key for item in store.list("log/", after="log/0000000002.json")] == names[1:]
        assert [item.key for item in store.list("log/", after="log/0000000003.json")] == names[2:]
        assert [item.key for item in store.list("log/", after="log/1")] == names[3:]
        assert [item.key for item in store.list("log/", after="log/1/x")] == names[4:]
        assert list(store.list("log/", after="log/b")) == []

    def test_folders_are_the_names_one_level_below_a_prefix(self, store: Store) -> None:
        assert list(store.folders("models/")) == []
        for key in (
            "models/b/versions/0000000001.json",
            "models/b/channels/production/0000000001.json",
            "models/a.b/versions/0000000001.json",
            "models/a-b/versions/0000000001.json",
            "models/a/versions/0000000001.json",
            "models/a0/versions/0000000001.json",
            "models/a-file",
            "modelsx/c/versions/0000000001.json",
            "hint.json",
        ):
            store.put(key, b"x")
        assert list(store.folders("")) == ["models", "modelsx"]
        assert list(store.folders("models/")) == ["a", "a-b", "a.b", "a0", "b"]
        assert list(store.folders("models/b/")) == ["channels", "versions"]
        assert list(store.folders("models/b/versions/")) == []
        assert list(store.folders("models/none/")) == []

    def test_many_folders_are_all_named(self, store: Store) -> None:
        names = [f"model-{number:04d}" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: store.put(f"models/{name}/versions/1", b""), names))
        assert list(store.folders("models/")) == names

    def test_a_folder_whose_objects_are_gone_is_gone(self, store: Store) -> None:
        store.put("models/a/versions/1", b"x")
        store.put("models/b/versions/1", b"x")
        store.delete("models/a/versions/1")
        assert list(store.folders("models/")) == ["b"]
        assert [item.key for item in store.list("models/")] == ["models/b/versions/1"]

    @pytest.mark.parametrize(
        "key",
        [
            "a",
            "A/b",
            "a/B/c.D_e-f",
            "0/1/2/3/4/5/6/7/8/9",
            "_/__/_.",
            "a/b.json.bak",
            "a/" + "x" * 255,
            "/".join(["y" * 50] * 10),
            "models/digits/versions/0000000001.json",
            "con/nul.txt",
            "a/b-",
        ],
    )
    def test_odd_keys_are_kept_as_they_are(self, store: Store, key: str) -> None:
        assert store.put_if_absent(key, key.encode())
        assert not store.put_if_absent(key, b"other")
        assert store.get(key).data == key.encode()
        assert [item.key for item in store.list("")] == [key]
        assert [item.key for item in store.list(key)] == [key]
        assert list(store.list("", after=key)) == []
        store.delete(key)
        assert list(store.list("")) == []

    def test_keys_that_differ_in_case_alone_are_two(self, store: Store) -> None:
        store.put("log/a", b"small")
        assert store.put_if_absent("log/A", b"large")
        assert (store.get("log/a").data, store.get("log/A").data) == (b"small", b"large")

    def test_a_refused_writer_changes_neither_the_object_nor_its_tag(self, store: Store) -> None:
        store.put_if_absent("log/0000000001.json", b"first")
        before = store.get("log/0000000001.json")
        assert not store.put_if_absent("log/0000000001.json", b"second, and longer")
        assert store.get("log/0000000001.json") == before
        assert store.get_if_changed("log/0000000001.json", before.etag) is None

    def test_a_deleted_object_may_be_written_again(self, store: Store) -> None:
        assert store.put_if_absent("log/0000000001.json", b"first")
        store.delete("log/0000000001.json")
        assert store.put_if_absent("log/0000000001.json", b"second")
        assert store.get("log/0000000001.json").data == b"second"

    def test_readers_of_an_object_that_is_rewritten_see_whole_objects(self, store: Store) -> None:
        bodies = {bytes([letter]) * size for letter, size in ((65, 10), (66, 70_000), (67, 3000))}
        store.put("hint.json", b"A" * 10)
        done = threading.Event()

        def rewrite() -> None:
            for turn in range(60):
                store.put("hint.json", sorted(bodies)[turn % 3])
            done.set()

        def read() -> set[bytes]:
            seen = {store.get("hint.json").data}
            while not done.is_set():
                seen.add(store.get("hint.json").data)
            return seen

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            pool.submit(rewrite).result()
            assert all(reader.result() <= bodies for reader in readers)

    def test_delete_is_idempotent(self, store: Store) -> None:
        store.put("consumers/b.json", b"x")
        store.delete("consumers/b.json")
        store.delete("consumers/b.json")
        with pytest.raises(ObjectMissingError):
            store.get("consumers/b.json")

    @pytest.mark.parametrize(
        "key",
        [
            *("", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".hidden", "~/a"),
            *("a b", "a\n", "a\0b", "a\\b", "a%2fb", "a:b", "ä", "\ud800"),
            *("a" * 600, "a/" + "b" * 256),
        ],
        ids=ascii,
    )
    def test_keys_that_some_store_would_change_are_refused(self, store: Store, key: str) -> None:
        with pytest.raises(UsageError):
            store.put(key, b"x")
        with pytest.raises(UsageError):
            store.put_if_absent(key, b"x")

    def test_one_of_many_racing_writers_wins(self, store: Store) -> None:
        barrier = threading.Barrier(WRITERS)

        def write(key: str, writer: int) -> bool:
            barrier.wait(DEADLINE)
            return store.put_if_absent(key, str(writer).encode() * 100)

        with ThreadPoolExecutor(WRITERS) as pool:
            for turn in range(self.rounds):
                key = f"race/{turn:010d}.json"
                created = list(pool.map(lambda writer, key=key: write(key, writer), range(WRITERS)))
                assert created.count(True) == 1
                assert store.get(key).data == str(created.index(True)).encode() * 100
