from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.registry.errors import StoreUnreachableError, UsageError
from ferryline.registry.stores import ObjectMissingError, Store, open_store
from ferryline.registry.stores.folder import ORPHANED_AFTER, FolderStore
from ferryline.registry.stores.memory import MemoryStore
from tests.registry.store_conformance import StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestFolderStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FolderStore(tmp_path / "registry")


def test_a_folder_store_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put_if_absent("a/b", b"1")
    store.put_if_absent("a/b", b"2")
    store.put("a/b", b"3")
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == ["b"]


def test_a_folder_store_is_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.write_text("")
    store = FolderStore(tmp_path / "store")
    store.put_if_absent("a/b", b"1")
    store.put("a/c", b"1")
    modes = {(tmp_path / "store" / key).stat().st_mode for key in ("a/b", "a/c")}
    assert modes == {beside.stat().st_mode}


def test_what_is_no_file_is_not_listed_and_a_loop_is_said_so(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("log/a", b"1")
    os.mkfifo(tmp_path / "log" / "b")
    assert [item.key for item in store.list("log/")] == ["log/a"]
    (tmp_path / "log" / "c").symlink_to("c")
    with pytest.raises(StoreUnreachableError, match="Too many levels"):
        list(store.list("log/"))


@pytest.mark.parametrize("verb", ["put", "put_if_absent"])
def test_a_write_never_says_that_there_is_no_such_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    store = FolderStore(tmp_path / "store")
    sync = os.fsync

    def sweep(descriptor: int) -> None:  # somebody tidies up while the write is under way
        sync(descriptor)
        for left in (store.root / ".incoming").iterdir():
            left.unlink()

    monkeypatch.setattr("os.fsync", sweep)
    with pytest.raises(StoreUnreachableError, match="No such file"):
        getattr(store, verb)("a/b", b"1")
    monkeypatch.undo()
    assert list(store.list("")) == []


def test_a_name_that_cannot_be_synced_is_an_unknown_outcome_and_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    store.put("a/before", b"")

    def deny(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("ferryline.registry.stores.folder.sync_folder", deny)
    with pytest.raises(StoreUnreachableError, match="cannot say whether"):
        store.put_if_absent("a/b", b"1")
    assert store.get("a/b").data == b"1"


class Syncs:
    """Counts the syncs of folders, and lets those that are named fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing: set[Path] = set()
        self.synced: list[Path] = []
        for module in ("durable", "stores.folder"):
            monkeypatch.setattr(f"ferryline.registry.{module}.sync_folder", self)

    def __call__(self, folder: Path) -> None:
        if folder in self.failing:
            raise OSError(errno.EIO, "Input/output error", str(folder))
        self.synced.append(folder)


def test_a_sync_that_failed_is_made_up_for_by_whoever_finds_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, syncs = FolderStore(tmp_path), Syncs(monkeypatch)
    store.put("log/1", b"")
    syncs.failing.add(tmp_path / "log")
    with pytest.raises(StoreUnreachableError):
        store.put_if_absent("log/2", b"2")
    with pytest.raises(StoreUnreachableError):  # the retry must not call it kept
        store.put_if_absent("log/2", b"2")
    syncs.failing.clear()
    syncs.synced.clear()
    assert store.put_if_absent("log/2", b"2") is False
    assert syncs.synced == [tmp_path / "log"]


def test_the_names_of_all_folders_are_synced_the_roots_own_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch)
    root = tmp_path / "new" / "store"
    store = FolderStore(root)
    store.put_if_absent("models/digits/versions/1", b"")
    named = {tmp_path, tmp_path / "new", root, *(root / each for each in ("models", "models/digits"))}
    assert named <= set(syncs.synced)
    syncs.synced.clear()
    store.put_if_absent("models/digits/versions/2", b"")
    assert syncs.synced == [root / "models/digits/versions"], "once is enough"


@pytest.mark.parametrize("above", ["", "new", "new/store", "new/store/models"])
def test_a_folder_whose_sync_failed_is_synced_by_the_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str
) -> None:
    syncs = Syncs(monkeypatch)
    store = FolderStore(tmp_path / "new" / "store")
    syncs.failing.add(tmp_path / above)
    for _ in range(2):
        with pytest.raises(StoreUnreachableError):
            store.put("models/digits/1", b"")
    syncs.failing.clear()
    store.put("models/digits/1", b"")
    assert tmp_path / above in syncs.synced


def test_what_others_made_above_the_root_need_not_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch)
    (tmp_path / "theirs").mkdir()
    syncs.failing |= {tmp_path.parent, tmp_path}  # closed to this user, say
    FolderStore(tmp_path / "theirs").put("a", b"")
    assert tmp_path / "theirs" in syncs.synced
    FolderStore(tmp_path / "theirs" / "store").put("a", b"")
    with pytest.raises(StoreUnreachableError):
        FolderStore(tmp_path / "ours").put("a", b"")


def test_what_killed_writers_left_behind_goes_and_what_is_under_way_stays(tmp_path: Path) -> None:
    incoming = tmp_path / ".incoming"
    incoming.mkdir()
    for name, age in (("killed", ORPHANED_AFTER + 60), ("under-way", ORPHANED_AFTER - 60)):
        (incoming / name).write_bytes(b"half a model")
        now = (incoming / name).stat().st_mtime
        os.utime(incoming / name, (now, now - age))
    store = FolderStore(tmp_path)
    list(store.list(""))
    assert (incoming / "killed").exists(), "a reader removes nothing"
    store.put("a", b"")
    assert [left.name for left in incoming.iterdir()] == ["under-way"]


@pytest.mark.skipif(os.name != "posix", reason="a lock of POSIX systems")
def test_a_lock_that_is_never_let_go_keeps_no_writer_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    pauses: list[float] = []
    monkeypatch.setattr("ferryline.registry.stores.folder.time.sleep", pauses.append)
    store = FolderStore(tmp_path / "store")
    store.put("hint.json", b"1")
    descriptor = os.open(store.root / ".incoming", os.O_RDONLY)  # whoever can read the folder can lock it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert store.put_if_unchanged("hint.json", b"2", store.get("hint.json").etag)
    finally:
        os.close(descriptor)
    assert store.get("hint.json").data == b"2"
    assert 0 < sum(pauses) < 5


def test_a_folder_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FolderStore(tmp_path / "file")
    with pytest.raises(StoreUnreachableError, match="check the disk"):
        store.put("a", b"")


@pytest.mark.parametrize(
    ("url", "kind"),
    [("memory://x", "MemoryStore"), ("file:///tmp/r%20s", "FolderStore"), ("s3://bucket", "S3Store")],
)
def test_a_url_chooses_the_store(url: str, kind: str) -> None:
    assert type(open_store(url)).__name__ == kind


def test_a_file_url_is_unquoted() -> None:
    store = open_store("file:///tmp/r%20s")
    assert isinstance(store, FolderStore)
    assert store.root == Path("/tmp/r s")  # noqa: S108 - never written


@pytest.mark.parametrize(
    "url",
    ["", "models", "s3://", "http://host", "file://host/path", "file:relative",
     "s3://b?endpoint=host:9000", "s3://b?endpoint=http://h:1/path", "s3://b?endpont=http://h:1"],
)  # fmt: skip
def test_a_wrong_url_is_refused_with_the_forms(url: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket"):
        open_store(url)


@pytest.mark.parametrize("url", ["file:///srv/a#b", "file:///srv/a?b", "file:///srv/a#", "s3://bucket/a#b",
                                 "memory://name#b", "memory://name?b", "memory://name/b"])  # fmt: skip
def test_what_a_url_would_lose_in_silence_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no store"):
        open_store(url)


def test_a_folder_with_odd_characters_has_a_url() -> None:
    folder = Path("/srv/a#b?c%23")
    store = open_store(folder.as_uri())
    assert isinstance(store, FolderStore)
    assert store.root == folder


def test_credentials_stay_out_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
    url = open_store("s3://bucket/pre?endpoint=http://h:1").url
    assert url == "s3://bucket/pre at h:1"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_what_is_no_file_is_no_object_and_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    store = FolderStore(tmp_path)
    store.put("models/a", b"")
    make(tmp_path / "models" / "b")
    with pytest.raises(ObjectMissingError):
        store.get("models/b")
    assert not store.put_if_absent("models/b", b"")
    assert [listed.key for listed in store.list("models/")] == ["models/a"]
