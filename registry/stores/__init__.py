"""The object stores a registry can lie on, chosen by a URL."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ferryline.registry.errors import UsageError
from ferryline.registry.stores.base import Listed, ObjectMissingError, Store, Stored

__all__ = ["Listed", "ObjectMissingError", "Store", "Stored", "open_store"]

_FORMS = "s3://bucket/prefix?endpoint=http://host:port, file:///folder or memory://name"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_AWS = "https://s3.amazonaws.com"


def open_store(url: str) -> Store:
    """The store that `url` names; nothing is contacted yet.

    Raises:
        UsageError: the URL has none of the known forms.
    """
    try:
        # an empty fragment or query is dropped by the parser, and would be by whoever believes it
        if url.endswith(("#", "?")):
            raise _cut_short(url)
        return _open(urlsplit(url))
    except ValueError as error:  # such as an IPv6 address that is none
        raise UsageError(f"{url!r} is no store: {error}; FERRY_STORE is one of {_FORMS}") from error


def _open(parts: SplitResult) -> Store:
    if parts.fragment or (parts.query and parts.scheme != "s3"):
        raise _cut_short(parts.geturl())
    if parts.scheme == "s3" and parts.netloc:
        return _open_s3(parts)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc and "%00" not in parts.path:
        from ferryline.registry.stores.folder import FolderStore

        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "memory" and not parts.path:
        from ferryline.registry.stores.memory import MemoryStore

        return MemoryStore(parts.netloc or "default")
    raise UsageError(f"{parts.geturl()!r} is no store; FERRY_STORE is one of {_FORMS}")


def _open_s3(parts: SplitResult) -> Store:
    query = parse_qs(parts.query, keep_blank_values=True)
    if unknown := set(query) - {"endpoint", "region"}:
        raise UsageError(f"unknown parameter {min(unknown)!r} in the store's URL; expected {_FORMS}")
    if not _BUCKET.fullmatch(parts.netloc):
        raise UsageError(f"{parts.netloc!r} cannot name a bucket; expected {_FORMS}")
    endpoint = urlsplit(query.get("endpoint", [_AWS])[0])
    if endpoint.scheme not in {"http", "https"} or not endpoint.netloc or endpoint.path.strip("/"):
        raise UsageError(f"endpoint {endpoint.geturl()!r} is not http://host:port; expected {_FORMS}")
    # minio-py takes a third of the command's start; a folder store need not pay it
    from ferryline.registry.stores.s3 import S3Store

    return S3Store(
        parts.netloc,
        unquote(parts.path).strip("/"),
        endpoint=endpoint.netloc,
        secure=endpoint.scheme == "https",
        region=query.get("region", ["us-east-1"])[0],
    )


def _cut_short(url: str) -> UsageError:
    return UsageError(f"{url!r} is no store: '#' and '?' end a path; in a folder's name write %23 and %3F")
