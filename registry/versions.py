"""The versions of one model: a blob and a manifest each, numbered 1, 2, 3 … in the order of publishing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime

from registry import keys
from registry.digests import digest_of, require_digest
from registry.documents import Blob, Manifest, ModelFacts, TrainingRecord, utc_now
from registry.errors import BrokenChainError, ConflictError, NotFoundError
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
            ConflictError: more publishers raced for a number than can be expected.
            StoreError: the store did not take it; a blob without a manifest is invisible and harmless.
        """
        blob = Blob(digest=digest_of(data), size=len(data))
        self._store.put_if_absent(keys.blob(blob.digest), data)
        number = self._log.head()
        for _ in range(PUBLISH_ATTEMPTS):
            number += 1
            manifest = self._manifest(number, blob, facts, training or TrainingRecord(), actor)
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
