"""Proves that a store keeps the promises the logs are built on, before anyone trusts it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from registry.documents import utc_now
from registry.errors import FerryError
from registry.stores.base import ObjectMissingError, Store

RACERS = 16
LARGEST_SKEW = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found."""

    probe: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Probe:
    store: Store
    prefix: str

    def key(self, name: str) -> str:
        return f"{self.prefix}{name}"


def examine(store: Store) -> list[Finding]:
    """Run every probe on objects of its own, and take them away again."""
    with _scratch(store) as probe:
        return [_run(name, check, probe) for name, check in _PROBES.items()]


@contextmanager
def _scratch(store: Store) -> Iterator[_Probe]:
    prefix = f"doctor/{uuid.uuid4().hex}/"
    try:
        yield _Probe(store, prefix)
    finally:
        _clean_up(store, prefix)


def _clean_up(store: Store, prefix: str) -> None:
    try:
        for listed in list(store.list(prefix)):
            store.delete(listed.key)
    except FerryError:
        # the findings tell already that the store does not answer; a left-over probe harms nothing
        return


def _run(name: str, check: Callable[[_Probe], str], probe: _Probe) -> Finding:
    try:
        return Finding(name, passed=True, detail=check(probe))
    except (FerryError, _BrokenPromiseError) as error:
        return Finding(name, passed=False, detail=str(error))


class _BrokenPromiseError(Exception):
    """The store answered, and not as it must."""


def _require(kept: bool, promise: str) -> None:
    if not kept:
        raise _BrokenPromiseError(promise)


def _read_after_write(probe: _Probe) -> str:
    probe.store.put(probe.key("written"), b"first")
    _require(
        probe.store.get(probe.key("written")).data == b"first", "a read did not show the write before it"
    )
    probe.store.put(probe.key("written"), b"second")
    _require(
        probe.store.get(probe.key("written")).data == b"second", "a read showed an object before its rewrite"
    )
    return "a read shows the newest write"


def _missing(probe: _Probe) -> str:
    try:
        probe.store.get(probe.key("never-written"))
    except ObjectMissingError:
        return "a missing object is said to be missing"
    raise _BrokenPromiseError("a read of a missing object gave bytes")


def _put_if_absent_twice(probe: _Probe) -> str:
    key = probe.key("once")
    _require(probe.store.put_if_absent(key, b"first"), "the first put-if-absent was refused")
    _require(not probe.store.put_if_absent(key, b"second"), "a second put-if-absent replaced the object")
    _require(probe.store.get(key).data == b"first", "a refused put-if-absent changed the object")
    return "the second writer is refused"


def _race(probe: _Probe) -> str:
    key, barrier = probe.key("race"), threading.Barrier(RACERS)

    def write(racer: int) -> bool:
        barrier.wait()
        return probe.store.put_if_absent(key, str(racer).encode())

    with ThreadPoolExecutor(RACERS) as pool:
        won = [racer for racer, created in enumerate(pool.map(write, range(RACERS))) if created]
    _require(len(won) == 1, f"{len(won)} of {RACERS} racing writers were told that they won")
    _require(probe.store.get(key).data == str(won[0]).encode(), "the object is not the winner's")
    return f"one of {RACERS} racing writers wins"


def _listing(probe: _Probe) -> str:
    names = [probe.key(f"listed-{number}") for number in range(3)]
    for name in names:
        probe.store.put(name, b"x")
    prefix = probe.key("listed-")
    _require(
        [item.key for item in probe.store.list(prefix)] == names, "a listing lacks what was just written"
    )
    after = [item.key for item in probe.store.list(prefix, after=names[0])]
    _require(after == names[1:], "a listing from a key onwards gives other keys")
    return "a listing shows every write, in order"


def _conditional_read(probe: _Probe) -> str:
    key = probe.key("conditional")
    probe.store.put(key, b"first")
    etag = probe.store.get(key).etag
    _require(probe.store.get_if_changed(key, etag) is None, "an unchanged object was sent again")
    probe.store.put(key, b"second")
    _require(probe.store.get_if_changed(key, etag) is not None, "a changed object was said to be unchanged")
    return "a conditional read tells changed from unchanged"


def _deletion(probe: _Probe) -> str:
    key = probe.key("deleted")
    probe.store.put(key, b"x")
    probe.store.delete(key)
    try:
        probe.store.get(key)
    except ObjectMissingError:
        return "a deleted object is gone"
    raise _BrokenPromiseError("a deleted object could still be read")


def _clock(probe: _Probe) -> str:
    probe.store.put(probe.key("clock"), b"x")
    listed = next(iter(probe.store.list(probe.key("clock"))), None)
    if listed is None:
        raise _BrokenPromiseError("a listing lacks what was just written")
    skew = abs(utc_now() - listed.modified_at)
    _require(
        skew < LARGEST_SKEW,
        f"the store's clock is {skew.total_seconds():.0f} s off; set both clocks by NTP (ordering does not "
        "depend on them, ages and signatures do)",
    )
    return f"clocks agree within {max(skew.total_seconds(), 1):.0f} s"


_PROBES: dict[str, Callable[[_Probe], str]] = {
    "read after write": _read_after_write,
    "missing object": _missing,
    "put-if-absent twice": _put_if_absent_twice,
    "put-if-absent race": _race,
    "listing": _listing,
    "conditional read": _conditional_read,
    "deletion": _deletion,
    "clock": _clock,
}
