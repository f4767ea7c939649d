"""The refusal ledger: candidates that a gate kept from serving, newest first for whoever asks why.

A record's id begins with its time in UTC, so a listing gives records in order and a reader of the newest few
lists only what is younger than some moment. The ledger is for people: a writer that cannot write loses the
record and goes on, because a refusal must never cost a consumer the version that it serves.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from pydantic import AwareDatetime, Field

from ferryline.registry import keys
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import Digest, utc_now
from ferryline.registry.errors import RefusedError, UntrustedAnswerError
from ferryline.registry.names import require_name
from ferryline.registry.schema import Document
from ferryline.registry.stores.base import ObjectMissingError, Store

PUBLISH = "publish"
"""The `consumer` of a refusal at publishing."""
LONGEST_TEXT = 2_000
"""Characters kept of a text, which may quote from a hostile file."""

_STAMP = "%Y%m%dT%H%M%S.%f"
_ID = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}-[0-9a-f]{8}\.json")
_READERS = 8
# widened until enough is found: a busy ledger is read by its last minute, a quiet one by five short listings
_WINDOWS = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=30))


class RefusalRecord(Document):
    """A candidate that was refused: by which gate, why, what helps, and who refused it.

    `consumer` is a consumer's id, or `publish`; what was not known is empty.
    """

    kind: ClassVar[str] = "refusal"

    model: str
    channel: str | None = None
    version: int | None = Field(default=None, ge=1)
    generation: int | None = Field(default=None, ge=1)
    blob_digest: Digest | None = None
    gate: str
    reason: str
    remedy: str
    consumer: str
    at: AwareDatetime


class Refusals:
    """The ledger of `model` in `store`."""

    def __init__(self, store: Store, model: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.model = require_name(model, what="model")
        self._store = store
        self._prefix = keys.refusals(model)
        self._clock = clock

    def record(
        self,
        *,
        gate: str,
        reason: str,
        remedy: str,
        consumer: str,
        channel: str | None = None,
        version: int | None = None,
        generation: int | None = None,
        blob_digest: str | None = None,
    ) -> RefusalRecord | None:
        """Write a refusal down; None where that did not work, which is never raised."""
        now = self._clock().astimezone(UTC)
        try:
            record = RefusalRecord(
                model=self.model,
                channel=channel,
                version=version,
                generation=generation,
                blob_digest=blob_digest,
                gate=gate,
                reason=_kept(reason),
                remedy=_kept(remedy),
                consumer=_kept(consumer),
                at=now,
            )
            written = self._store.put_if_absent(self._new_key(now), record.encode())
        except Exception:  # noqa: BLE001 - a refusal must be told and acted upon, written down or not
            return None
        return record if written else None

    @contextmanager
    def recording(self, *, consumer: str, data: bytes) -> Iterator[None]:
        """Write down what a gate refuses meanwhile of the file with these bytes, and raise it on."""
        try:
            yield
        except RefusedError as error:
            self.record(
                gate=error.gate,
                reason=error.reason,
                remedy=error.remedy,
                consumer=consumer,
                blob_digest=digest_of(data),
            )
            raise

    def newest(
        self, limit: int = 20, *, on_unreadable: Callable[[str], None] | None = None
    ) -> list[RefusalRecord]:
        """The newest `limit` records, newest first; what else lies there is passed over.

        Args:
            limit: how many at most.
            on_unreadable: told what is wrong with each record that cannot be read.

        Raises:
            StoreError: the store does not answer.
        """
        found: list[RefusalRecord] = []
        with ThreadPoolExecutor(_READERS) as pool:
            newest_first = self._newest_keys()
            while len(found) < limit:
                batch = list(itertools.islice(newest_first, limit - len(found)))
                if not batch:
                    break
                for record in pool.map(self._read, batch):
                    if isinstance(record, RefusalRecord):
                        found.append(record)
                    elif record and on_unreadable is not None:
                        on_unreadable(record)
        return found

    def _newest_keys(self) -> Iterator[str]:
        last: str | None = None
        now = self._clock().astimezone(UTC)
        for window in (*_WINDOWS, None):
            after = "" if window is None else f"{self._prefix}{now - window:{_STAMP}}"
            names = [key for key in self._keys(after) if last is None or key < last]
            for key in reversed(names):
                last = key
                yield key

    def _keys(self, after: str) -> Iterator[str]:
        for listed in self._store.list(self._prefix, after=after):
            if is_record(listed.key.removeprefix(self._prefix)):
                yield listed.key

    def _read(self, key: str) -> RefusalRecord | str | None:
        try:
            return RefusalRecord.decode(self._store.get(key).data, key=key)
        except ObjectMissingError:  # garbage collection took it since it was listed
            return None
        except UntrustedAnswerError as error:
            return str(error)

    def _new_key(self, now: datetime) -> str:
        return f"{self._prefix}{now:{_STAMP}}-{uuid.uuid4().hex[:8]}.json"


def is_record(name: str) -> bool:
    """Whether `name`, which lies in a model's ledger, is that of a record."""
    return _ID.fullmatch(name) is not None


def _kept(text: str) -> str:
    cut = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
    return cut.encode("utf-8", "replace").decode("utf-8")
