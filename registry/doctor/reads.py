"""Probes that write nothing, for credentials that may not."""

from __future__ import annotations

from itertools import islice, pairwise

from ferryline.registry import keys
from ferryline.registry.doctor.findings import BrokenPromiseError, Scratch, require
from ferryline.registry.stores.base import ObjectMissingError

_MANY = 2500


def missing_object(scratch: Scratch) -> str:
    """A follower's poll: what is not there is said to be missing, and not forbidden."""
    try:
        scratch.store.get(f"{keys.MODELS}{scratch.prefix}never-written")
    except ObjectMissingError:
        return "a missing object is said to be missing"
    raise BrokenPromiseError("a read of a missing object gave bytes")


def listing_order(scratch: Scratch) -> str:
    """What is there already is listed in order."""
    found = [listed.key for listed in islice(scratch.store.list(keys.MODELS), _MANY)]
    require(all(a < b for a, b in pairwise(found)), "a listing is not in the order of its keys")
    require(all(key.startswith(keys.MODELS) for key in found), "a listing gives keys that were not asked for")
    return f"{len(found):,} objects are listed in order"


def unchanged_object(scratch: Scratch) -> str:
    """A follower's other poll: the hint is not sent again while it is the same."""
    try:
        etag = scratch.store.get(keys.HINT).etag
        for _ in range(3):  # it may be rewritten between two reads, but hardly each time
            again = scratch.store.get_if_changed(keys.HINT, etag)
            if again is None:
                return "an unchanged object is not sent again"
            etag = again.etag
    except ObjectMissingError:
        return "there is no hint yet, which is no fault"
    raise BrokenPromiseError("an unchanged object was sent again")
