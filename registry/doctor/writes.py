"""Probes of what a store does with writes."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

from ferryline.registry.doctor.findings import HANDS, BrokenPromiseError, Scratch, at_once, require
from ferryline.registry.documents import utc_now
from ferryline.registry.stores.base import ObjectMissingError

LARGEST_SKEW = timedelta(seconds=60)
LARGE = 16 * 1024 * 1024
"""Bytes; beyond what proxies and stores tend to keep in one buffer."""

_RACES = 8
_TOGETHER_S = 30.0
"""How long a racing writer waits for the last one, which may never get a thread."""


def read_after_write(scratch: Scratch) -> str:
    """A read shows the newest write."""
    key = scratch.key("written")
    for text in (b"first", b"second", b"third"):
        scratch.store.put(key, text)
        require(_read(scratch, key) == text, "a read did not show the write before it")
    return "a read shows the newest write"


def poll(scratch: Scratch) -> str:
    """A follower asks again and again for what is not there yet: no 'missing' may be remembered."""
    key = scratch.key("awaited")
    require(_read(scratch, key) is None, "a read of a missing object gave bytes")
    require(scratch.store.put_if_absent(key, b"here"), "the first put-if-absent was refused")
    require(
        _read(scratch, key) == b"here",
        "an object was still said to be missing after it had been written: followers would miss promotions",
    )
    return "what was missing is seen once it is written"


def put_if_absent_twice(scratch: Scratch) -> str:
    """The second writer is refused, and changes nothing."""
    key = scratch.key("once")
    # a proxy may have repeated our request: then the answer is 'there already', and the bytes are ours
    created = scratch.store.put_if_absent(key, b"first")
    require(
        created or _read(scratch, key) == b"first",
        "the first put-if-absent was refused, and nothing was written",
    )
    require(
        not scratch.store.put_if_absent(key, b"second"), "a second put-if-absent was told that it wrote first"
    )
    require(
        _read(scratch, key) == b"first", "a put-if-absent that was refused changed the object, or lost it"
    )
    return "the second writer is refused"


def race(scratch: Scratch) -> str:
    """Of many writers at once one wins, and the object is its own."""
    for number in range(_RACES):
        _race_once(scratch, scratch.key(f"race-{number}"))
    return f"one of {HANDS} racing writers wins, {_RACES} times"


def _race_once(scratch: Scratch, key: str) -> None:
    barrier = threading.Barrier(HANDS, timeout=_TOGETHER_S)

    def write(racer: int) -> bool:
        barrier.wait()
        return scratch.store.put_if_absent(key, str(racer).encode())

    won = [racer for racer, created in enumerate(at_once(write, range(HANDS))) if created]
    require(len(won) == 1, f"{len(won)} of {HANDS} racing writers were told that they won")
    require(_read(scratch, key) == str(won[0]).encode(), "the object is not the winner's")


def large_object(scratch: Scratch) -> str:
    """A file of a model's size comes back as it went."""
    key, data = scratch.key("large"), os.urandom(LARGE)
    require(scratch.store.put_if_absent(key, data), "the first put-if-absent was refused")
    require(_read(scratch, key) == data, f"{LARGE:,} bytes came back as others")
    require(not scratch.store.put_if_absent(key, b"x"), "a put-if-absent replaced a large object")
    sizes = [listed.size for listed in scratch.store.list(key)]
    require(sizes == [LARGE], f"a listing gives {sizes} as the size of {LARGE:,} bytes")
    return f"{LARGE // 1024 // 1024} MiB come back as they went"


def conditional_read(scratch: Scratch) -> str:
    """A conditional read tells changed from unchanged."""
    key = scratch.key("conditional")
    scratch.store.put(key, b"first")
    etag = scratch.store.get(key).etag
    require(scratch.store.get_if_changed(key, etag) is None, "an unchanged object was sent again")
    scratch.store.put(key, b"second")
    changed = scratch.store.get_if_changed(key, etag)
    require(changed is not None, "a changed object was said to be unchanged")
    require(changed is not None and changed.data == b"second", "a conditional read gave an older object")
    return "a conditional read tells changed from unchanged"


def deletion(scratch: Scratch) -> str:
    """What was deleted is gone, and its name is free."""
    key = scratch.key("deleted")
    scratch.store.put(key, b"x")
    scratch.store.delete(key)
    require(_read(scratch, key) is None, "a deleted object could still be read")
    require(not list(scratch.store.list(key)), "a deleted object is still listed")
    require(scratch.store.put_if_absent(key, b"y"), "the name of a deleted object was not free again")
    scratch.store.delete(key)
    scratch.store.delete(key)  # nothing happens where there is none
    return "a deleted object is gone"


def clock(scratch: Scratch) -> str:
    """The store's clock is ours, more or less; ordering does not depend on it, ages do."""
    scratch.store.put(scratch.key("clock"), b"x")
    now = utc_now()
    listed = next(iter(scratch.store.list(scratch.key("clock"))), None)
    if listed is None:
        raise BrokenPromiseError("a listing lacks what was just written")
    skew = listed.modified_at - now
    side = "ahead" if skew > timedelta(0) else "behind"
    require(
        abs(skew) < LARGEST_SKEW,
        f"the store's clock is {abs(skew).total_seconds():.0f} s {side}; "
        "set both clocks by NTP (heartbeats and the grace of `ferry gc` go by them)",
    )
    return f"clocks agree within {max(abs(skew).total_seconds(), 1):.0f} s"


def _read(scratch: Scratch, key: str) -> bytes | None:
    try:
        return scratch.store.get(key).data
    except ObjectMissingError:
        return None
