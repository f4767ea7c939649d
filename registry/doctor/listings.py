"""Probes of what a store lists."""

from __future__ import annotations

from ferryline.registry.doctor.findings import Scratch, at_once, require

PAGE = 1000
"""Keys to a page of every S3 service; a log longer than that is listed in several."""

_MORE = 37


def listing(scratch: Scratch) -> str:
    """A listing shows every write at once, and from a key onwards."""
    prefix, names = scratch.key("listed-"), list[str]()
    for number in range(5):
        names.append(f"{prefix}{number}")
        scratch.store.put(names[-1], b"x")
        require(_keys(scratch, prefix) == names, "a listing lacks what was just written")
    require(
        _keys(scratch, prefix, after=names[1]) == names[2:], "a listing from a key onwards gives other keys"
    )
    return "a listing shows every write at once"


def pages(scratch: Scratch) -> str:
    """A long listing is whole and in the order of its keys across pages, and lacks no write."""
    prefix = scratch.key("paged/")
    names = [f"{prefix}{number:010d}.json" for number in range(PAGE + _MORE)]
    # from both ends inwards, so that the order of writing is not the order of the keys
    at_once(lambda name: scratch.store.put(name, b"x"), names[::2] + names[1::2][::-1])
    found = _keys(scratch, prefix)
    require(len(found) >= len(names), f"of {len(names)} objects that were written {len(found)} are listed")
    require(found == names, "a listing is not in the order of its keys, or repeats some")
    middle = len(names) // 2
    require(
        _keys(scratch, prefix, after=names[middle]) == names[middle + 1 :],
        "a long listing from a key onwards gives other keys",
    )
    return f"{len(names):,} objects are listed once each, in order"


def folders(scratch: Scratch) -> str:
    """The names one level down are each given once."""
    prefix = scratch.key("tree/")
    for name in ("a/1", "a/2", "b/deep/3", "file"):
        scratch.store.put(f"{prefix}{name}", b"x")
    found = list(scratch.store.folders(prefix))
    require(found == ["a", "b"], f"the folders a and b are listed as {found}")
    return "folders are listed once each"


def _keys(scratch: Scratch, prefix: str, *, after: str = "") -> list[str]:
    return [listed.key for listed in scratch.store.list(prefix, after=after)]
