"""The versions of one model: a blob and a manifest each, numbered 1, 2, 3 … in the order of publishing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime

from registry import keys
from registry.digests import digest_of, require_digest
from registry.documents import Blob, Manifest, ModelFacts, TrainingRecord, utc_now
from registry.errors import (
    BrokenChainError,
    ConflictError,
    CorruptDocumentError,
    NotFoundError,
    UsageError,
)
from registry.log import AppendLog
from registry.names import require_name
from registry.stores.base import ObjectMissingError, Store

# every loser of a race sees the winner's number, so this many publishers may race for one model
PUBLISH_ATTEMPTS = 64


class Versions:
    """The manifests of `model` in `store`."""

    def __init__(self, store: Store, model: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.model = require_name(model, what="model")
        self._store = store
        self._log = AppendLog(store, keys.versions(model))
        self._clock = clock

    def numbers(self) -> list[int]:
        """All versions, ascending."""
        return list(self._log.numbers())

    def newest(self) -> int:
        """The newest version, 0 where none is published."""
        return self._log.head()

    def get(self, version: int) -> Manifest:
        """The manifest of `version`.

        Raises:
            NotFoundError: there is no such model or version.
            UntrustedAnswerError: the manifest cannot be read as one of this version.
        """
        data = self._log.read(version)
        if data is None:
            raise self._no_version(version)
        key = self._log.key(version)
        manifest = Manifest.decode(data, key=key)
        if (manifest.model, manifest.version) != (self.model, version):
            raise BrokenChainError(
                f"{key} describes {manifest.model}@{manifest.version}; it lies in a wrong place"
            )
        return manifest

    def all(self) -> Iterator[Manifest]:
        """Every manifest, oldest first."""
        for number in self.numbers():
            yield self.get(number)

    def publish(
        self, data: bytes, facts: ModelFacts, training: TrainingRecord | None = None, *, actor: str
    ) -> Manifest:
        """Add a version: the blob first, then its manifest, so no version is ever seen without its file.

        Raises:
            UsageError: the manifest would hold what cannot be read again, such as a metric that is no number.
            ConflictError: more publishers raced for a number than can be expected.
            StoreError: the store did not take it; a blob without a manifest is invisible and harmless.
        """
        blob = Blob(digest=digest_of(data), size=len(data))
        training = training or TrainingRecord()
        _require_readable(self._manifest(1, blob, facts, training, actor))
        self._keep(blob, data)
        number = self._log.head()
        for _ in range(PUBLISH_ATTEMPTS):
            number += 1
            manifest = self._manifest(number, blob, facts, training, actor)
            try:
                self._log.append(number, manifest.encode())
            except ConflictError:
                continue
            return manifest
        raise ConflictError(
            f"{PUBLISH_ATTEMPTS} other versions of {self.model} were published meanwhile; try again"
        )

    def download(self, manifest: Manifest) -> bytes:
        """The stored bytes of a version's file, not checked yet.

        Raises:
            BrokenChainError: the blob is not there.
        """
        try:
            return self._store.get(keys.blob(manifest.blob.digest)).data
        except ObjectMissingError as error:
            raise BrokenChainError(
                f"the file of {self.model}@{manifest.version} is missing ({error}); "
                "restore it, or publish again"
            ) from error

    def load(self, manifest: Manifest) -> bytes:
        """The model file of `manifest`, checked against its digest.

        Raises:
            DigestMismatchError: the stored bytes are others.
            BrokenChainError: the blob is not there.
        """
        what = f"the file of {self.model}@{manifest.version}"
        return require_digest(self.download(manifest), manifest.blob.digest, what=what)

    def _keep(self, blob: Blob, data: bytes) -> None:
        key = keys.blob(blob.digest)
        if not self._store.put_if_absent(key, data) and self._store.get(key).data != data:
            # no bytes but these may lie under their digest: publishing again mends a damaged file
            self._store.put(key, data)

    def _manifest(
        self, number: int, blob: Blob, facts: ModelFacts, training: TrainingRecord, actor: str
    ) -> Manifest:
        return Manifest(
            model=self.model,
            version=number,
            created_at=self._clock(),
            actor=actor,
            op_id=uuid.uuid4().hex,
            blob=blob,
            **dict(facts),
            **dict(training),
        )

    def _no_version(self, version: int) -> NotFoundError:
        newest = self.newest()
        if not newest:
            return NotFoundError(f"no model {self.model} here; `ferry list` shows what there is")
        return NotFoundError(f"{self.model} has no version {version}; the newest is {newest}")


def _require_readable(manifest: Manifest) -> None:
    """What is written is there for good, so it is read back first: JSON has no NaN, for one."""
    try:
        Manifest.decode(manifest.encode(), key=f"the manifest of {manifest.model}")
    except CorruptDocumentError as error:
        raise UsageError(f"{error}; nothing was published") from error
