"""A quick look at a store before the first write to it, remembered so that later commands need none.

A store that overwrites where it should refuse would let two promoters both believe that they won. It costs
four requests to find out, once in `KEEP` for each store and machine.
"""

from __future__ import annotations

import contextlib
import uuid
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import orjson

from ferryline.registry.documents import utc_now
from ferryline.registry.errors import MissingRightError, StoreError, UntrustedAnswerError
from ferryline.registry.stores.base import Store

KEEP = timedelta(days=30)
"""So long a store is believed to be the one that was looked at."""

_FORM = 1  # of the note, and of the look: a stricter look begins anew


class Trust(StrEnum):
    """Why a store may be written to."""

    REMEMBERED = "remembered"
    PROVED = "proved"
    NOT_PROBED = "not probed"


def require_trustworthy(store: Store, memory: Path) -> Trust:
    """Return if `store` keeps a put-if-absent, or was seen to keep it before.

    Credentials that may not write below `doctor/` are let through: by `docs/access.md` whoever may write the
    logs may write there too, and nobody is to be locked out by a policy of their own.

    Args:
        store: the store that is about to be written to.
        memory: a folder of this user's (`Settings.state`); one small file for each store is kept there.

    Raises:
        UntrustedAnswerError: it cheats. Nothing was written but the probe.
        StoreError: it gave no answer.
    """
    note = memory / "trusted-stores" / f"{sha256(store.url.encode()).hexdigest()[:32]}.json"
    if _remembers(note, store.url, utc_now()):
        return Trust.REMEMBERED
    if not _prove(store):
        return Trust.NOT_PROBED
    _remember(note, store.url, utc_now())
    return Trust.PROVED


def _prove(store: Store) -> bool:
    """Whether the store was proved; False where these credentials may not find out."""
    from ferryline.registry.doctor.findings import BrokenPromiseError, Scratch
    from ferryline.registry.doctor.writes import put_if_absent_twice

    scratch = Scratch(store)
    try:
        put_if_absent_twice(scratch)
    except MissingRightError:
        return False
    except BrokenPromiseError as error:
        raise UntrustedAnswerError(
            f"{store.url} is not fit for a registry, and nothing was written to its logs: {error}. "
            "`ferry doctor` tells more; keep the registry on another store"
        ) from error
    finally:
        with contextlib.suppress(StoreError):
            store.delete(scratch.key("once"))
    return True


def _remembers(note: Path, url: str, now: datetime) -> bool:
    try:
        said = orjson.loads(note.read_bytes())
        age = now - datetime.fromisoformat(said["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    # a note from the future was written by a clock that was wrong
    return said.get("form") == _FORM and said.get("store") == url and timedelta(0) <= age < KEEP


def _remember(note: Path, url: str, now: datetime) -> None:
    incoming = note.with_name(f".{uuid.uuid4().hex}")
    # where nothing can be kept, the store is looked at each time
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        try:
            incoming.write_bytes(orjson.dumps({"form": _FORM, "store": url, "at": now.isoformat()}))
            incoming.replace(note)
        finally:
            incoming.unlink(missing_ok=True)
