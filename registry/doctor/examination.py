"""The whole examination: every probe that these credentials allow."""

from __future__ import annotations

from ferryline.registry.doctor import listings, reads, writes
from ferryline.registry.doctor.findings import Finding, Outcome, Scratch, run
from ferryline.registry.errors import FerryError, MissingRightError
from ferryline.registry.stores.base import Store

_WRITING = {
    "read after write": writes.read_after_write,
    "poll": writes.poll,
    "put-if-absent twice": writes.put_if_absent_twice,
    "put-if-absent race": writes.race,
    "large object": writes.large_object,
    "conditional read": writes.conditional_read,
    "deletion": writes.deletion,
    "listing": listings.listing,
    "listing in pages": listings.pages,
    "folders": listings.folders,
    "clock": writes.clock,
}

_READING = {
    "missing object": reads.missing_object,
    "listing order": reads.listing_order,
    "unchanged object": reads.unchanged_object,
}


def examine(store: Store) -> list[Finding]:
    """Run every probe on objects of its own, and take them away again.

    Credentials that may not write below `doctor/` still learn what can be told by reading; what could not be
    probed is said so.
    """
    scratch = Scratch(store)
    reading = [run(name, check, scratch) for name, check in _READING.items()]
    if (forbidden := _forbidden(scratch)) is not None:
        return reading + [Finding(name, Outcome.NOT_PROBED, forbidden) for name in _WRITING]
    try:
        return reading + [run(name, check, scratch) for name, check in _WRITING.items()]
    finally:
        scratch.clean_up()


def _forbidden(scratch: Scratch) -> str | None:
    """Why nothing can be written for a trial; None where it can, or where the probes will tell."""
    try:
        scratch.store.put(scratch.key("first"), b"x")
    except MissingRightError as error:
        return f"lacks {error.right}"
    except FerryError:
        return None
    return None
