"""Logs that someone else had their hands in: said clearly, with the right exit code; nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from ferryline.registry import Registry, keys
from ferryline.registry.cli.edge import ExitCode, exit_code
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.errors import (
    BrokenChainError,
    CorruptDocumentError,
    FerryError,
    NotFoundError,
    UnknownSchemaError,
)
from ferryline.registry.stores.folder import FolderStore
from tests.registry.histories import CHANNEL, MODEL, facts

PREFIX = keys.channel(MODEL, CHANNEL)
VERSIONS = keys.versions(MODEL)


def key(generation: int) -> str:
    return f"{PREFIX}{generation:010d}.json"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Three versions and four generations in a folder, where foreign files can be put by hand."""
    made = Registry(FolderStore(tmp_path), actor="tester")
    for number in range(3):
        made.publish(MODEL, b"model %d" % number, facts())
    for version in (1, 2, 3, 1):
        made.promote(MODEL, version)
    return made


def raw(registry: Registry) -> dict[str, bytes]:
    return {listed.key: registry.store.get(listed.key).data for listed in registry.store.list("models/")}


def rewrite(registry: Registry, generation: int, data: bytes) -> None:
    registry.store.put(key(generation), data)


def walk(registry: Registry) -> object:
    return list(registry.channel(MODEL).history())


def promote(registry: Registry) -> object:
    return registry.promote(MODEL, 2)


def rollback(registry: Registry) -> object:
    return registry.rollback(MODEL)


def head(registry: Registry) -> object:
    return registry.channel(MODEL).require_head()


def refuse(registry: Registry, act: Callable[[Registry], object], kind: type[FerryError]) -> str:
    """What `act` says when it is refused; it must change nothing and exit with 6."""
    before = raw(registry)
    with pytest.raises(kind) as caught:
        act(registry)
    assert exit_code(caught.value) == ExitCode.UNREACHABLE
    assert raw(registry) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- holes and forks ------------------------------------------------------------------------------


def test_a_hole_is_told_of_and_never_written_into(registry: Registry) -> None:
    registry.store.delete(key(3))
    assert f"{key(3)} is missing from the log" in refuse(registry, walk, BrokenChainError)
    registry.store.delete(keys.HINT)
    assert registry.promote(MODEL, 3).generation == 5
    assert key(3) not in raw(registry)


def test_a_hole_on_the_way_back_is_told_of(registry: Registry) -> None:
    registry.store.delete(key(3))
    assert f"{key(3)} is missing" in refuse(registry, rollback, BrokenChainError)
    assert registry.rollback(MODEL, to=2).generation == 5


def test_a_hole_among_the_versions_gives_its_number_to_nobody(registry: Registry) -> None:
    registry.store.delete(f"{VERSIONS}0000000002.json")
    with pytest.raises(NotFoundError, match="has no version 2"):
        registry.promote(MODEL, 2)
    assert registry.publish(MODEL, b"the next", facts()).version == 4
    assert registry.versions(MODEL).numbers() == [1, 3, 4]


def test_a_forked_chain_is_told_of(registry: Registry) -> None:
    second = registry.channel(MODEL).get(2)
    other = registry.channel(MODEL).get(3).model_copy(update={"reason": "another third", "op_id": "other"})
    rewrite(registry, 3, other.encode())
    assert "generation 4 of digits:production does not follow from generation 3" in refuse(
        registry, walk, BrokenChainError
    )
    refuse(registry, lambda some: some.channel(MODEL).newer_than(second), BrokenChainError)


def test_an_entry_of_another_channel_is_told_of(registry: Registry) -> None:
    registry.promote(MODEL, 1, "staging")
    rewrite(registry, 5, registry.store.get(keys.channel(MODEL, "staging") + "0000000001.json").data)
    for act in (head, promote, rollback, walk):
        assert "lies in a wrong place" in refuse(registry, act, BrokenChainError)


# --- foreign files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "0000000007.json.bak",
        "7.json",
        "00000000007.json",
        "0000000007",
        "0000000000.json",
        "-000000007.json",
        "+000000007.json",
        "0_0000_007.json",
        "000000000\u0667.json",
        "0000000007.JSON",
        "0000000007.json.tmp/0000000008.json",
        "0000000007.json~",
        ".0000000007.json.swp",
        "0000000004 (copy).json",
        "\udcff.json",
    ],
)
@pytest.mark.parametrize("prefix", [PREFIX, VERSIONS])
def test_foreign_files_are_passed_over(registry: Registry, tmp_path: Path, name: str, prefix: str) -> None:
    foreign = tmp_path / prefix / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"{}")
    (tmp_path / keys.HINT).unlink()
    assert len(list(registry.channel(MODEL).history())) == 4
    assert registry.versions(MODEL).numbers() == [1, 2, 3]
    assert registry.versions(MODEL).newest() == 3
    assert registry.promote(MODEL, 2).generation == 5
    assert registry.publish(MODEL, b"the next", facts()).version == 4
    assert registry.models() == [MODEL]
    assert foreign.read_bytes() == b"{}"


def test_a_folder_in_an_entrys_place_is_no_entry(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / key(5)).mkdir()
    assert registry.channel(MODEL).require_head().generation == 4
    refuse(registry, promote, FerryError)


# --- entries that cannot be read ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind", "told"),
    [
        (b"", CorruptDocumentError, "is not JSON"),
        (b"\x00" * 600, CorruptDocumentError, "is not JSON"),
        (b"[1]", CorruptDocumentError, "not a JSON object"),
        (b"{}", CorruptDocumentError, "has no schema_version"),
        (b'{"schema_version":"1.0"}', CorruptDocumentError, "is no channel entry: model"),
        (b'{"schema_version":"2.0"}', UnknownSchemaError, "upgrade ferryline"),
        (b'{"schema_version":"99999999999999999999"}', CorruptDocumentError, "has no schema_version"),
        (b"[" * 100_000, CorruptDocumentError, "is not JSON"),
        (b'{"schema_version":"1.0","generation":1e999}', CorruptDocumentError, "5.json"),
    ],
    ids=["empty", "zeros", "list", "object", "wrong fields", "newer", "much newer", "deep", "infinite"],
)
def test_an_entry_that_cannot_be_read_stops_changes_and_says_why(
    registry: Registry, data: bytes, kind: type[FerryError], told: str
) -> None:
    fourth = registry.channel(MODEL).require_head()
    rewrite(registry, 5, data)
    for act in (head, promote, rollback, walk, lambda some: some.channel(MODEL).newer_than(fourth)):
        message = refuse(registry, act, kind)
        assert told in message
        assert key(5) in message
    # the other channels of the model are none the worse
    assert registry.promote(MODEL, 2, "staging").generation == 1


def test_an_entry_with_fields_of_a_newer_minor_schema_is_carried_on(registry: Registry) -> None:
    newer = orjson.loads(registry.store.get(key(4)).data) | {"schema_version": "1.9", "weather": "fine"}
    rewrite(registry, 4, orjson.dumps(newer))
    entry = registry.promote(MODEL, 2)
    assert registry.channel(MODEL).get(4).schema_version == "1.9"
    assert registry.channel(MODEL).newer_than(registry.channel(MODEL).get(4))[0].op_id == entry.op_id
    assert [found.generation for found in registry.channel(MODEL).history()] == [1, 2, 3, 4, 5]


# --- a log that was cut while someone follows it ---------------------------------------------------


def cut(registry: Registry, after: int) -> ChannelEntry:
    """Cut the log after a generation, as restoring an old backup does; gives what its follower knows."""
    known = registry.channel(MODEL).require_head()
    for generation in range(after + 1, known.generation + 1):
        registry.store.delete(key(generation))
    return known


def test_a_follower_of_a_log_that_was_cut_does_not_go_back_and_does_not_go_on(registry: Registry) -> None:
    known = cut(registry, after=2)
    assert registry.channel(MODEL).newer_than(known) == []
    for version in (1, 2):
        registry.promote(MODEL, version)  # generations 3 and 4, of another history
    assert registry.channel(MODEL).newer_than(known) == []
    registry.promote(MODEL, 3)
    message = refuse(registry, lambda some: some.channel(MODEL).newer_than(known), BrokenChainError)
    assert "the log was altered or replaced" in message
    assert "started anew" in message


def test_a_log_that_was_cut_goes_on_for_writers_though_the_hint_is_ahead(registry: Registry) -> None:
    cut(registry, after=2)
    assert registry.promote(MODEL, 3, expect=2).generation == 3
    assert [entry.generation for entry in registry.channel(MODEL).history()] == [1, 2, 3]


# --- hints that lie -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claimed", [0, 1, 3, 5, 60, 68, 1000, 10**9, 10**18, 2**63, 10**30, -1, "7", None, 1.5]
)
def test_a_hint_that_lies_changes_nothing(registry: Registry, claimed: object) -> None:
    lie = {"versions": claimed, "channels": {CHANNEL: claimed}}
    registry.store.put(keys.HINT, json.dumps({"schema_version": "1.0", "models": {MODEL: lie}}).encode())
    assert registry.channel(MODEL).require_head().generation == 4
    assert registry.versions(MODEL).newest() == 3
    assert registry.promote(MODEL, 2).generation == 5
    assert registry.publish(MODEL, b"the next", facts()).version == 4
    assert registry.rollback(MODEL).version == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"nonsense",
        b"\xff" * 100,
        b'{"schema_version":"2.0"}',
        b'{"schema_version":"1.0","models":{"digits":{"weather":' + b"9" * 30 + b"}}}",
    ],
)
def test_a_hint_that_cannot_be_read_changes_nothing(registry: Registry, data: bytes) -> None:
    registry.store.put(keys.HINT, data)
    assert registry.promote(MODEL, 2).generation == 5
    assert registry.publish(MODEL, b"the next", facts()).version == 4


# --- clocks ---------------------------------------------------------------------------------------


def test_a_clock_set_back_a_day_changes_no_order(registry: Registry) -> None:
    def yesterday() -> datetime:
        return datetime.now(UTC) - timedelta(days=1)

    late = Registry(registry.store, actor="late", clock=yesterday)
    entry, manifest = late.promote(MODEL, 3), late.publish(MODEL, b"from yesterday", facts())
    assert (entry.generation, manifest.version) == (5, 4)
    entries = list(registry.channel(MODEL).history())
    assert [found.generation for found in entries] == [1, 2, 3, 4, 5]
    assert entries[-1].at < entries[0].at
    assert registry.channel(MODEL).require_head().op_id == entry.op_id
    assert registry.channel(MODEL).newer_than(entries[3])[0].op_id == entry.op_id
    assert registry.rollback(MODEL).version == 1


@pytest.mark.parametrize("moment", [datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)])
def test_an_absurd_clock_gives_an_entry_that_can_be_read(registry: Registry, moment: datetime) -> None:
    entry = Registry(registry.store, actor="odd", clock=lambda: moment).promote(MODEL, 2)
    assert registry.channel(MODEL).require_head().at == moment
    assert registry.promote(MODEL, 3).previous == entry.digest
