"""How many requests the registry makes, whatever the length of its logs: counted, so no clock is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import pytest

from ferryline.registry import Registry, keys
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.hints import Hint, ModelHint
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import CountingStore
from tests.registry.histories import CHANNEL, MODEL, facts
from tests.support.sizes import sized

_D = TypeVar("_D", ChannelEntry, Manifest)

LONG = sized(2_000, 10_000)
"""More than a store lists in one page."""
SHORT = 10


@cache
def _written(length: int) -> MemoryStore:
    """A registry of so many versions, each promoted once, as the registry itself writes it."""
    store = MemoryStore()
    registry = Registry(store, actor="tester")
    manifest = registry.publish(MODEL, b"model", facts())
    entry = registry.promote(MODEL, 1)
    for number in range(2, length + 1):
        manifest = _copy(manifest, version=number, op_id=f"{number:032x}")
        store.put(f"{keys.versions(MODEL)}{number:010d}.json", manifest.encode())
        entry = _copy(
            entry,
            generation=number,
            version=number,
            manifest_digest=digest_of(manifest.encode()),
            op_id=f"{number:032x}",
            previous=digest_of(entry.encode()),
            undoes_to=number - 1,
        )
        store.put(f"{keys.channel(MODEL, CHANNEL)}{number:010d}.json", entry.encode())
    hint = Hint(models={MODEL: ModelHint(versions=length, channels={CHANNEL: length})})
    store.put(keys.HINT, hint.encode())
    return store


def _copy(document: _D, **fields: object) -> _D:
    return document.model_copy(update=fields)


def counted(length: int, *, hint: bool = True) -> tuple[Registry, CountingStore]:
    """A registry of so many versions and generations, and what counts its requests."""
    memory = MemoryStore()
    memory._objects = dict(_written(length)._objects)
    if not hint:
        memory.delete(keys.HINT)
    store = CountingStore(memory)
    return Registry(store, actor="tester"), store


def poll(registry: Registry) -> object:
    return registry.channel(MODEL).newer_than(registry.channel(MODEL).require_head())


ACTS: dict[str, tuple[Callable[[Registry], object], int]] = {
    "promote": (lambda registry: registry.promote(MODEL, 3), 15),
    "promote, expecting": (lambda registry: registry.promote(MODEL, 3, expect=_head(registry)), 20),
    "canary": (lambda registry: registry.promote(MODEL, 3, canary=5), 16),
    "rollback": (lambda registry: registry.rollback(MODEL), 18),
    "hold": (lambda registry: registry.hold(MODEL), 12),
    "publish": (lambda registry: registry.publish(MODEL, b"new", facts()), 12),
    "head": (lambda registry: registry.channel(MODEL).require_head(), 4),
    "newest": (lambda registry: registry.channel(MODEL).newest(20), 24),
    "resolve": (lambda registry: registry.versions(MODEL).get(3), 2),
    "newest version": (lambda registry: registry.versions(MODEL).newest(), 4),
    "models": (lambda registry: registry.models(), 2),
    "channels": (lambda registry: registry.channels(MODEL), 1),
}


def _head(registry: Registry) -> int:
    return registry.channel(MODEL).require_head().generation


def requests(act: Callable[[Registry], object], length: int) -> tuple[int, int]:
    """How many requests, and how many listed objects, `act` costs."""
    registry, store = counted(length)
    act(registry)
    return store.total, store.listed


@pytest.mark.parametrize("name", ACTS)
def test_as_many_requests_for_a_long_log_as_for_a_short_one(name: str) -> None:
    act, most = ACTS[name]
    long, short = requests(act, LONG), requests(act, SHORT)
    assert long[0] <= most
    # of 20 entries asked for, a short log has fewer
    assert long == short or name == "newest"


def test_the_undo_of_a_long_history_is_found_at_once() -> None:
    registry, _ = counted(LONG)
    assert [registry.rollback(MODEL).version for _ in range(3)] == [LONG - 1, LONG - 2, LONG - 3]


def test_a_rollback_to_a_version_of_long_ago_does_not_walk_the_log() -> None:
    registry, store = counted(LONG)
    assert registry.rollback(MODEL, to=1).version == 1
    assert store.total < 100


def test_the_poll_of_a_follower_is_one_request() -> None:
    registry, store = counted(LONG)
    channel, head = registry.channel(MODEL), registry.channel(MODEL).require_head()
    store.reset()
    assert channel.newer_than(head) == []
    assert store.total == 1


def test_without_a_hint_one_listing_is_added_and_the_next_writer_has_one_again() -> None:
    registry, store = counted(LONG, hint=False)
    registry.promote(MODEL, 3)
    assert store.total <= ACTS["promote"][1]
    assert store.listed >= LONG
    store.reset()
    registry.promote(MODEL, 2)
    assert store.listed < 10


def test_a_writer_that_was_far_ahead_of_the_hint_lists_only_what_is_beyond_it() -> None:
    registry, store = counted(LONG)
    hint = Hint(models={MODEL: ModelHint(channels={CHANNEL: LONG - 50})})
    registry.store.put(keys.HINT, hint.encode())
    store.reset()
    assert registry.promote(MODEL, 3).generation == LONG + 1
    assert store.listed < 60
