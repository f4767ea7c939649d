"""Writers that are killed or frozen at every step: the log stays whole, and it tells what happened."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from registry import Registry, keys
from registry.documents import ChannelEntry
from registry.errors import ConflictError
from registry.stores import open_store
from registry.stores.folder import FolderStore
from tests.faulty_store import missing
from tests.registry.histories import facts
from tests.registry.log_invariants import log_of, violations
from tests.registry.victims import MODEL, OBJECT, Ending, Order, Victims

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CONFLICT = 4


@pytest.fixture(params=["folder", "minio"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return (tmp_path / "registry").as_uri()
    found = request.getfixturevalue("minio_store_url")
    assert isinstance(found, str)
    return found


@pytest.fixture
def registry(url: str) -> Registry:
    """Two versions; the first serves, after the second."""
    made = Registry(open_store(url), actor="tester")
    for number in (1, 2):
        made.publish(MODEL, b"model %d" % number, facts())
    made.promote(MODEL, 2)
    made.promote(MODEL, 1)
    return made


@pytest.fixture
def victims(registry: Registry) -> Iterator[Victims]:
    # after the store is up, whose credentials it inherits
    with Victims() as started:
        yield started


def require_whole(registry: Registry) -> list[ChannelEntry]:
    found = violations(log_of(registry.store, keys.channel(MODEL, "production")), [])
    assert [fault for fault in found if not fault.startswith("nobody wanted")] == []
    return list(registry.channel(MODEL).history())


def require_switch(written: list[bool]) -> None:
    """Nothing is written before some step, and everything from there on."""
    assert written == sorted(written)
    assert set(written) == {False, True}


@pytest.mark.parametrize("call", ["promote", "rollback", "hold"])
def test_a_change_that_is_killed_is_in_the_log_or_is_not(
    registry: Registry, url: str, victims: Victims, call: str
) -> None:
    written: list[bool] = []
    for step in count(1):
        before = registry.channel(MODEL).require_head().generation
        ending = victims.run(Order(call, url, step, name=f"step {step}"))
        if ending.exited is not None:
            assert ending.exited == 0
            break
        assert ending.killed == signal.SIGKILL
        written.append(registry.channel(MODEL).require_head().reason == f"step {step}")
        # so whoever wonders promotes again with the generation they knew, and the log decides
        try:
            registry.promote(MODEL, 1, expect=before, force=True)
        except ConflictError:
            assert written[-1]
            registry.promote(MODEL, 1, force=True)
        else:
            assert not written[-1]
        assert registry.channel(MODEL).require_head().version == 1
    require_switch(written)
    reasons = [entry.reason for entry in require_whole(registry)]
    assert sorted(reason for reason in reasons if reason) == sorted(
        f"step {step}" for step, kept in enumerate([*written, True], 1) if kept
    )


@pytest.mark.parametrize("call", ["promote", "rollback"])
def test_a_change_that_is_frozen_while_others_go_on_is_first_or_a_conflict(
    registry: Registry, url: str, victims: Victims, call: str
) -> None:
    codes: list[int] = []
    for step in count(1):
        registry.promote(MODEL, 2, force=True)
        registry.promote(MODEL, 1, force=True)
        frozen = victims.run(Order(call, url, step, "SIGSTOP", f"step {step}"))
        if frozen.exited is not None:
            assert frozen.exited == 0
            break
        assert frozen.frozen == signal.SIGSTOP
        elsewhere = registry.promote(MODEL, 1, reason="elsewhere", force=True)
        ending = victims.resume(frozen)
        assert ending.exited in {0, CONFLICT}
        codes.append(ending.exited)
        history = require_whole(registry)
        assert elsewhere.op_id in {entry.op_id for entry in history}
        assert any(entry.reason == f"step {step}" for entry in history) is (ending.exited == 0)
    # done before the other looks, then overtaken, then done before the other came
    assert set(codes) == {0, CONFLICT}
    assert (codes[0], codes[-1]) == (0, 0)


def test_a_publisher_that_is_killed_leaves_a_whole_version_or_none(
    registry: Registry, url: str, victims: Victims
) -> None:
    versions, written = registry.versions(MODEL), [False]
    for step in count(1):
        before = versions.newest()
        ending = victims.run(Order("publish", url, step, name=f"step {step}"))
        numbers = versions.numbers()
        assert numbers == list(range(1, len(numbers) + 1))
        newest = versions.get(versions.newest())
        assert versions.load(newest)
        if ending.exited is not None:
            assert (ending.exited, newest.actor) == (0, f"step {step}")
            break
        written.append(newest.actor == f"step {step}")
        assert versions.newest() == before + written[-1]
        # the same file again is what a person does next
        again = registry.publish(MODEL, f"step {step}".encode(), facts())
        assert again.version == before + written[-1] + 1
        assert versions.load(again) == f"step {step}".encode()
    require_switch(written)


def test_a_publisher_that_is_frozen_takes_the_next_number(
    registry: Registry, url: str, victims: Victims
) -> None:
    versions = registry.versions(MODEL)
    for step in count(1):
        frozen = victims.run(Order("publish", url, step, "SIGSTOP", f"step {step}"))
        if frozen.exited is not None:
            break
        elsewhere = registry.publish(MODEL, b"elsewhere", facts())
        ending = victims.resume(frozen)
        assert ending.exited == 0
        numbers = versions.numbers()
        assert numbers == list(range(1, len(numbers) + 1))
        assert versions.get(elsewhere.version).digest == elsewhere.digest
        actors = [versions.get(number).actor for number in numbers[-2:]]
        assert sorted(actors) == [f"step {step}", "tester"]
    assert frozen.exited == 0


# --- the folder store, line by line ---------------------------------------------------------------


@pytest.fixture
def line_victims() -> Iterator[Victims]:
    with Victims() as started:
        yield started


def _killed_at_each_line(victims: Victims, root: Path, call: str) -> Iterator[tuple[FolderStore, Ending]]:
    for line in count(1):
        store = FolderStore(root / str(line))
        if call == "put":
            store.put(OBJECT, b"before")
        ending = victims.run(Order(call, store.url, line, name="written", lines=True))
        yield store, ending
        if ending.exited is not None:
            assert ending.exited == 0
            return


def test_a_put_if_absent_killed_at_any_line_wrote_all_or_nothing(
    line_victims: Victims, tmp_path: Path
) -> None:
    written: list[bool] = []
    for store, _ in _killed_at_each_line(line_victims, tmp_path / "lines", "put_if_absent"):
        written.append(not missing(store, OBJECT))
        # whatever was left behind is not seen, and does not stand in the way of the next writer
        assert [item.key for item in store.list("")] == [OBJECT] * written[-1]
        assert list(store.folders("")) == ["log"] * written[-1]
        assert store.put_if_absent(OBJECT, b"the next") is not written[-1]
        assert store.get(OBJECT).data == (b"written" if written[-1] else b"the next")
        store.put("log/0000000002.json", b"second")
        assert [item.key for item in store.list("log/")] == [OBJECT, "log/0000000002.json"]
    assert len(written) > 20
    require_switch(written)


def test_a_replacement_killed_at_any_line_shows_the_old_or_the_new_object(
    line_victims: Victims, tmp_path: Path
) -> None:
    written: list[bool] = []
    for store, _ in _killed_at_each_line(line_victims, tmp_path / "lines", "put"):
        data = store.get(OBJECT).data
        assert data in {b"before", b"written"}
        written.append(data == b"written")
        store.put(OBJECT, b"the next")
        assert store.get(OBJECT).data == b"the next"
    require_switch(written)
