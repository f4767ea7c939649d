"""SHA-256 digests as they are written in manifests and entries: `sha256:<64 hex digits>`."""

from __future__ import annotations

import hashlib
import re

from ferryline.registry.errors import DigestMismatchError, UsageError

PREFIX = "sha256:"
_FORM = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """The digest of `data`, as `sha256:<hex>`."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def hex_of(digest: str) -> str:
    """The hexadecimal part of a digest.

    Raises:
        UsageError: `digest` is not of the form `sha256:<64 hex digits>`.
    """
    if not _FORM.fullmatch(digest):
        raise UsageError(f"{digest!r} is not a digest; expected sha256:<64 hex digits>")
    return digest.removeprefix(PREFIX)


def require_digest(data: bytes, digest: str, *, what: str) -> bytes:
    """Return `data` if it has `digest`.

    Raises:
        DigestMismatchError: it has another one; `what` names the object in the message.
    """
    actual = digest_of(data)
    if actual != digest:
        raise DigestMismatchError(
            f"{what} has digest {actual} ({len(data)} bytes) but is recorded as {digest}; "
            "the object is corrupt, truncated or was replaced"
        )
    return data
