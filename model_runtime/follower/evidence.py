"""Reads what a trusted entry names, and decides what a bad answer of the store is evidence of.

- An object that is not there is never final: it may be on its way, hidden by a store that fails over, or
  brought back by publishing it again.
- Bytes that are not what they must be are final once a second try, some time later, finds the same fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from ferryline.registry.catalogue import Registry
from ferryline.registry.digests import require_digest
from ferryline.registry.documents import Manifest
from ferryline.registry.errors import (
    BrokenChainError,
    CorruptDocumentError,
    DigestMismatchError,
    RefusedError,
    UnknownSchemaError,
    UntrustedAnswerError,
)

REMEDY = "Publish the version again and promote that"

_T = TypeVar("_T")
_DOUBTFUL = frozenset({"digest", "manifest", "schema"})
"""Gates whose finding may be the fault of a read."""


class Named(Protocol):
    """A version that an entry names."""

    version: int
    blob_digest: str
    manifest_digest: str


class Doubts:
    """Remembers what was found damaged at the last try."""

    def __init__(self) -> None:
        self._found: set[tuple[str, str]] = set()

    def clear(self) -> None:
        """Forget what was found: the next fault counts as the first."""
        self._found.clear()

    def settle(self, what: str, part: Named, read: Callable[[], _T]) -> _T:
        """Returns what `read` gives.

        Args:
            what: what is read (`manifest`, `file`).
            part: the version that it belongs to.
            read: reads it.

        Raises:
            RefusedError: a gate refuses it; one that a bad read may mislead, for the second time in a row.
            UntrustedAnswerError: such a gate refuses it for the first time; it is to be read again.
        """
        doubted = (what, part.manifest_digest)
        try:
            found = read()
        except RefusedError as error:
            if error.gate not in _DOUBTFUL or doubted in self._found:
                self._found.discard(doubted)
                raise
            self._found.add(doubted)
            raise UntrustedAnswerError(
                f"{error.reason}; it is read once more before it is refused"
            ) from error
        self._found.discard(doubted)
        return found


def read_manifest(registry: Registry, model: str, part: Named) -> Manifest:
    """Returns the manifest that was promoted.

    Raises:
        RefusedError: another one lies there, or it cannot be read (gates `digest`, `manifest`, `schema`).
        UntrustedAnswerError: the store does not show it.
    """
    try:
        manifest = registry.versions(model).find(part.version)
    except UnknownSchemaError as error:
        raise RefusedError("schema", str(error), "Upgrade this consumer") from error
    except (CorruptDocumentError, BrokenChainError) as error:
        raise RefusedError("manifest", str(error), REMEDY) from error
    if manifest is None:
        raise UntrustedAnswerError(
            f"the store does not show the manifest of {model}@{part.version}, which was promoted; "
            "if that lasts, restore it from a backup"
        )
    if (manifest.digest, manifest.blob.digest) != (part.manifest_digest, part.blob_digest):
        raise RefusedError(
            "digest",
            f"the manifest of {model}@{part.version} is not the one that was promoted",
            "Someone altered the store; promote the version again once you know why",
        )
    return manifest


def download(registry: Registry, manifest: Manifest) -> bytes:
    """Returns the file of a version.

    Raises:
        RefusedError: the stored bytes are others (gate `digest`).
        BrokenChainError: the store does not show the file.
    """
    what = f"the file of {manifest.model}@{manifest.version}"
    try:
        data = registry.versions(manifest.model).download(manifest)
        return require_digest(data, manifest.blob.digest, what=what)
    except DigestMismatchError as error:
        raise RefusedError("digest", str(error), REMEDY) from error
