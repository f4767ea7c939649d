"""Where in an S3 service a registry lies, read from its store URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from ferryline.registry.errors import UsageError

_AWS = "https://s3.amazonaws.com"
# in a policy '*', '?' and '$' are no letters but patterns, which would let in more than was meant
_PLAIN = re.compile(r"[A-Za-z0-9._/-]*")


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket, what precedes the registry's keys in it (empty, or ending in a slash), and the service."""

    bucket: str
    prefix: str
    endpoint: str
    secure: bool

    @classmethod
    def of(cls, store: str) -> Location:
        """The location that a store URL names.

        Raises:
            UsageError: it is no S3 store, which alone has users and policies.
        """
        parts = urlsplit(store)
        if parts.scheme != "s3" or not parts.netloc:
            raise UsageError(
                f"{store!r} is no S3 store, and only those have policies; "
                "write s3://bucket/prefix?endpoint=http://host:port"
            )
        prefix = unquote(parts.path).strip("/")
        if not _PLAIN.fullmatch(f"{parts.netloc}/{prefix}"):
            raise UsageError(f"{parts.netloc}/{prefix} has characters that mean something else in a policy")
        endpoint = urlsplit(parse_qs(parts.query).get("endpoint", [_AWS])[0])
        return cls(
            bucket=parts.netloc,
            prefix=f"{prefix}/" if prefix else "",
            endpoint=endpoint.netloc,
            secure=endpoint.scheme == "https",
        )
