"""Bearer tokens: a file that names them and holds the SHA-256 of each, never a token itself.

    [tokens.web]
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    rights = ["infer"]
    not_after = 2027-01-31T00:00:00Z    # optional

A token has 256 random bits, so that a plain hash of it is as good as a slow one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ferryline.grpc_server.reloading import read_file
from ferryline.grpc_server.security.rights import Right
from ferryline.registry.errors import ConflictError, UsageError

PREFIX = "ferry_"
"""Of every token made here, so that tools that look for leaked secrets can find it."""
_RANDOM_BYTES = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"sha256", "rights", "not_after"}


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """What is known of one token.

    Args:
        name: whose it is, for logs.
        digest: the SHA-256 of the token.
        rights: what it allows.
        not_after: when it ends; None for never.
    """

    name: str
    digest: bytes
    rights: frozenset[Right]
    not_after: datetime | None = None


class Tokens:
    """The tokens that are known."""

    def __init__(self, entries: Iterable[TokenEntry]) -> None:
        self.entries = tuple(entries)

    def find(self, token: str) -> TokenEntry | None:
        """Whose token that is; the time it takes says nothing about the tokens that are known."""
        digest = digest_of(token)
        found = None
        for entry in self.entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        return found


def digest_of(token: str) -> bytes:
    """What the file holds of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def parse_tokens(file: Path, data: bytes) -> Tokens:
    """The tokens in the bytes of `file`.

    Raises:
        UsageError: it is not of the form it must have.
    """
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}") from error
    tables = document.pop("tokens", {})
    if document or not isinstance(tables, dict):
        raise UsageError(f"{file} must hold tables [tokens.NAME] and nothing else")
    if not tables:
        raise UsageError(f"{file} names no token, so that nobody could ask; see `ferry-server token --help`")
    entries = [_entry(file, name, table) for name, table in tables.items()]
    digests = [entry.digest for entry in entries]
    for entry in entries:
        if digests.count(entry.digest) > 1:
            raise UsageError(f"{file} has the token of {entry.name!r} under two names")
    return Tokens(entries)


def _entry(file: Path, name: str, table: object) -> TokenEntry:
    what = f"{file}: token {name!r}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{what} has a name that is not {_NAME.pattern}")
    if not isinstance(table, dict) or set(table) - _FIELDS:
        raise UsageError(f"{what} may say {', '.join(sorted(_FIELDS))} and nothing else")
    digest = table.get("sha256")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise UsageError(f"{what} needs sha256, 64 hexadecimal digits in lower case")
    return TokenEntry(name, bytes.fromhex(digest), _rights(what, table), _end(what, table))


def _rights(what: str, table: Mapping[str, Any]) -> frozenset[Right]:
    named = table.get("rights")
    known = [right.value for right in Right]
    if not isinstance(named, list) or not named or not all(name in known for name in named):
        raise UsageError(f"{what} needs rights, a list of {' and '.join(known)}")
    return frozenset(Right(name) for name in named)


def _end(what: str, table: Mapping[str, Any]) -> datetime | None:
    end = table.get("not_after")
    if end is None:
        return None
    if not isinstance(end, datetime):
        raise UsageError(f"{what} has a not_after that is no date with a time")
    return end if end.tzinfo else end.replace(tzinfo=UTC)


def make_token(name: str, rights: Sequence[Right], not_after: datetime | None = None) -> tuple[str, str]:
    """A new token, and what the file must hold of it.

    Raises:
        UsageError: the name is none, or there are no rights.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a token; use {_NAME.pattern}")
    if not rights:
        raise UsageError(f"a token needs a right: {' or '.join(Right)}")
    token = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    key = name if "." not in name else f'"{name}"'
    lines = [f"[tokens.{key}]", f'sha256 = "{digest_of(token).hex()}"']
    lines.append(f"rights = {[right.value for right in sorted(set(rights))]}".replace("'", '"'))
    if not_after is not None:
        lines.append(f"not_after = {not_after.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return token, "\n".join(lines) + "\n"


def add_to_file(file: Path, name: str, table: str) -> None:
    """Add what `make_token` gave to a file of tokens, or make the file; servers see the old or the new one.

    Raises:
        ConflictError: the file has a token of that name.
        UsageError: the file cannot be read or written, or is not of the form it must have.
    """
    before = read_file(file) if file.exists() else b""
    if before and name in {entry.name for entry in parse_tokens(file, before).entries}:
        raise ConflictError(f"{file} has a token {name!r}; take it out first, or choose another name")
    text = before.decode().rstrip("\n")
    after = (f"{text}\n\n{table}" if text else table).encode()
    parse_tokens(file, after)
    try:
        _replace(file, after)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


def _replace(file: Path, data: bytes) -> None:
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    with _removed_on_failure(*tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")) as (number, name):
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
            os.fchmod(number, mode)
            os.fsync(number)
        Path(name).replace(file)


@contextlib.contextmanager
def _removed_on_failure(number: int, name: str) -> Iterator[tuple[int, str]]:
    try:
        yield number, name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
