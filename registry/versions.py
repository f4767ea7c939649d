"""The versions of one model: a blob and a manifest each, numbered 1, 2, 3 … in the order of publishing."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from ferryline.registry import garbage, keys
from ferryline.registry.digests import digest_of, require_digest
from ferryline.registry.documents import Blob, Manifest, ModelFacts, TrainingRecord, utc_now
from ferryline.registry.errors import (
    BrokenChainError,
    ConflictError,
    CorruptDocumentError,
    DigestMismatchError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from ferryline.registry.hints import Hints
from ferryline.registry.log import AppendLog
from ferryline.registry.names import require_name
from ferryline.registry.signing.seal import UNSEALED, Seal
from ferryline.registry.stores.base import ObjectMissingError, Store, require_size

# every loser of a race sees the winner's number, so this many publishers may race for one model
PUBLISH_ATTEMPTS = 64


class Versions:
    """The manifests of `model` in `store`."""

    def __init__(
        self, store: Store, model: str, *, clock: Callable[[], datetime] = utc_now, seal: Seal = UNSEALED
    ) -> None:
        self.model = require_name(model, what="model")
        self._store = store
        self._hints = Hints(store)
        self._log = AppendLog(store, keys.versions(model))
        self._clock = clock
        self.seal = seal

    def numbers(self, *, after: int = 0) -> list[int]:
        """All versions beyond `after`, ascending."""
        return list(self._log.numbers(after=after))

    def newest_numbers(self, limit: int) -> list[int]:
        """The newest versions, newest first: `limit` of them, fewer where some are missing from the log.

        However long the log is, only its end is listed.
        """
        return self.numbers(after=max(0, self.newest() - limit))[::-1][:limit]

    def newest(self) -> int:
        """The newest version, 0 where none is published."""
        newest = self._log.newest(at_least=self._hints.versions(self.model))
        return newest[0] if newest else 0

    def get(self, version: int) -> Manifest:
        """The manifest of `version`.

        Raises:
            NotFoundError: there is no such model or version.
            UntrustedAnswerError: the manifest cannot be read as one of this version.
        """
        manifest = self.find(version)
        if manifest is None:
            raise self._no_version(version)
        return manifest

    def find(self, version: int) -> Manifest | None:
        """Returns the manifest of `version`, None where the store shows none.

        Raises:
            UntrustedAnswerError: the manifest cannot be read as one of this version.
        """
        data = self._log.confirmed(version)
        return None if data is None else self._decode(version, data)

    def get_many(self, versions: Iterable[int]) -> Iterator[Manifest]:
        """The manifests of versions that were seen in a listing, in that order, several read at a time.

        Raises:
            UntrustedAnswerError: one is gone, or cannot be read as one of its version.
        """
        numbers = list(versions)
        for number, data in zip(numbers, self._log.require_many(numbers), strict=True):
            yield self._decode(number, data)

    def _decode(self, version: int, data: bytes) -> Manifest:
        key = self._log.key(version)
        manifest = Manifest.decode(data, key=key)
        if (manifest.model, manifest.version) != (self.model, version):
            raise BrokenChainError(
                f"{key} describes {manifest.model}@{manifest.version}; it lies in a wrong place"
            )
        return manifest

    def all(self) -> Iterator[Manifest]:
        """Every manifest, oldest first."""
        yield from self.get_many(self.numbers())

    def publish(
        self, data: bytes, facts: ModelFacts, training: TrainingRecord | None = None, *, actor: str
    ) -> Manifest:
        """Add a version: the blob first, then its manifest, so no version is ever seen without its file.

        Raises:
            UsageError: the manifest would hold what cannot be read again, such as a metric that is no number.
            RefusedError: the manifest would not be trusted (gate `signature`).
            ConflictError: more publishers raced for a number than can be expected.
            StoreError: the store did not take it; a blob without a manifest is invisible and harmless.
        """
        blob = Blob(digest=digest_of(data), size=len(data))
        training = training or TrainingRecord()
        _require_readable(self._manifest(1, blob, facts, training, actor))
        kept = garbage.keep(self._store, blob.digest, data)
        number = self.newest()
        for _ in range(PUBLISH_ATTEMPTS):
            number += 1
            manifest = self._manifest(number, blob, facts, training, actor)
            try:
                self._log.append(number, manifest.encode())
            except ConflictError:
                continue
            kept.confirm()
            self._hints.tell_version(self.model, number)
            return manifest
        raise ConflictError(
            f"{PUBLISH_ATTEMPTS} other versions of {self.model} were published meanwhile; try again"
        )

    def require_servable(self, version: int) -> Manifest:
        """The manifest of a version whose file lies in the store.

        Raises:
            NotFoundError: there is no such model or version.
            RefusedError: its file is gone, or has another size (gate `blob`), or nobody trusted vouches for
                the manifest (gate `signature`).
        """
        manifest = self.get(version)
        self.seal.require(manifest)
        size = self._stored_size(manifest)
        if size != manifest.blob.size:
            gone = garbage.missing_reason(self._store, manifest.blob.digest) if size is None else ""
            found = gone or f"has {size} bytes"
            raise RefusedError(
                "blob",
                f"the file of {self.model}@{version} ({manifest.blob.size} bytes) {found}",
                "Publish the same file again: that brings it back for every version that has it",
            )
        return manifest

    def download(self, manifest: Manifest) -> bytes:
        """The stored bytes of a version's file; but for their number, not checked yet.

        Raises:
            DigestMismatchError: there are more or less than the manifest says; they were not fetched.
            BrokenChainError: the blob is not there.
        """
        size = self._stored_size(manifest)
        if size not in {None, manifest.blob.size}:
            raise DigestMismatchError(
                f"the file of {self.model}@{manifest.version} has {size} bytes instead of "
                f"{manifest.blob.size}, so it is not what its digest says; publish the same file again"
            )
        try:
            return self._store.get(keys.blob(manifest.blob.digest)).data
        except ObjectMissingError as error:
            raise BrokenChainError(
                f"the file of {self.model}@{manifest.version} "
                f"{garbage.missing_reason(self._store, manifest.blob.digest)}; publish the same file again"
            ) from error

    def load(self, manifest: Manifest) -> bytes:
        """The model file of `manifest`, checked against its digest.

        Raises:
            RefusedError: nobody trusted vouches for the manifest (gate `signature`).
            DigestMismatchError: the stored bytes are others.
            BrokenChainError: the blob is not there.
        """
        self.seal.require(manifest)
        what = f"the file of {self.model}@{manifest.version}"
        with contextlib.suppress(DigestMismatchError):  # it may have come damaged on the way alone
            return require_digest(self.download(manifest), manifest.blob.digest, what=what)
        return require_digest(self.download(manifest), manifest.blob.digest, what=what)

    def _stored_size(self, manifest: Manifest) -> int | None:
        key = keys.blob(manifest.blob.digest)
        listed = next(iter(self._store.list(key)), None)
        return listed.size if listed and listed.key == key else None

    def _manifest(
        self, number: int, blob: Blob, facts: ModelFacts, training: TrainingRecord, actor: str
    ) -> Manifest:
        manifest = Manifest(
            model=self.model,
            version=number,
            created_at=self._clock(),
            actor=actor,
            op_id=uuid.uuid4().hex,
            blob=blob,
            **dict(facts),
            **dict(training),
        )
        return self.seal.sign(manifest)

    def _no_version(self, version: int) -> NotFoundError:
        newest = self.newest()
        if not newest:
            return NotFoundError(f"no model {self.model} here; `ferry list` shows what there is")
        return NotFoundError(f"{self.model} has no version {version}; the newest is {newest}")


def _require_readable(manifest: Manifest) -> None:
    """What is written is there for good, so it is read back first: JSON has no NaN, for one."""
    data, key = manifest.encode(), f"the manifest of {manifest.model}"
    try:
        require_size(key, len(data))
        Manifest.decode(data, key=key)
    except CorruptDocumentError as error:
        raise UsageError(f"{error}; nothing was published") from error
