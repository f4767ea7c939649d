"""Public keys on disk, and how long each may sign.

A trust file is PEM, with what is known of a key in `Name: value` lines above its block (RFC 7468 allows text
there) and comments after `#`:

    # the trainer in Zurich
    Name: trainer-2026
    Key-Id: 3f1c0d5e9a7b2468
    Created: 2026-01-01T00:00:00+00:00
    Not-After: 2027-01-01T00:00:00+00:00
    -----BEGIN PUBLIC KEY-----
    …

Only the block must be there. Files may be concatenated; a folder means all its `*.pub` files. The lines are
the truster's to edit: `Not-After` in this file is what counts here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ferryline.registry.errors import UsageError
from ferryline.registry.signing.pem import PUBLIC_BLOCK, key_id_of, parse_public_body, public_pem

PUBLIC_SUFFIX = ".pub"
LARGEST_FILE = 1 << 20
_FIELDS = frozenset({"Name", "Key-Id", "Created", "Not-After"})


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, and what the truster says of it.

    Attributes:
        key_id: 16 hexadecimal digits, from the key itself.
        raw: its 32 bytes.
        name: what people call it.
        created: when it was made.
        not_after: what is dated later is refused; what is older stays valid.
        source: the file it was read from.
    """

    key_id: str
    raw: bytes
    name: str = ""
    created: datetime | None = None
    not_after: datetime | None = None
    source: Path | None = None

    def __str__(self) -> str:
        return f"{self.key_id} ({self.name})" if self.name else self.key_id

    def text(self) -> str:
        """The key as it stands in a trust file."""
        fields = {
            "Name": self.name,
            "Key-Id": self.key_id,
            "Created": self.created.isoformat() if self.created else "",
            "Not-After": self.not_after.isoformat() if self.not_after else "",
        }
        lines = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
        return lines + public_pem(self.raw)


def read_trusted_keys(place: Path) -> tuple[TrustedKey, ...]:
    """The keys in a trust file, or in all `*.pub` files of a folder.

    Raises:
        UsageError: there is none, one is damaged or named twice, or anyone may write the file.
    """
    files = _files(place.expanduser())
    keys = [key for file in files for key in _read(file)]
    if not keys:
        raise UsageError(
            f"{place} holds no public key; put the *{PUBLIC_SUFFIX} files of `ferry keygen` there"
        )
    for earlier, later in _twice(keys):
        raise UsageError(f"key {later.key_id} lies in {earlier.source} and in {later.source}; remove one")
    return tuple(keys)


def parse_moment(text: str) -> datetime:
    """A date or time in ISO 8601; without a zone it is UTC.

    Raises:
        ValueError: it is none.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _files(place: Path) -> list[Path]:
    try:
        if place.is_dir():
            _require_ours(place, place.stat())
            return sorted(file for file in place.iterdir() if file.suffix == PUBLIC_SUFFIX)
    except OSError as error:
        raise _unreadable(place, error) from error
    return [place]


def _read(file: Path) -> Iterator[TrustedKey]:
    try:
        with file.open("rb") as opened:
            _require_ours(file, os.fstat(opened.fileno()))
            data = opened.read(LARGEST_FILE)
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        yield from _parse(data.decode(), file)
    except ValueError as error:
        raise UsageError(f"{file} is no trust file: {error}") from error


def _require_ours(file: Path, found: os.stat_result) -> None:
    # whoever can write here decides whom we trust; a mode that a read-only mount overrules is none
    if found.st_mode & stat.S_IWOTH and os.access(file, os.W_OK):
        raise UsageError(f"everyone may write {file}, so nothing in it can be trusted; run: chmod o-w {file}")


def _unreadable(file: Path, error: OSError) -> UsageError:
    return UsageError(f"{file} cannot be read: {error.strerror}; FERRY_TRUSTED_KEYS names a file or a folder")


def _parse(text: str, file: Path) -> Iterator[TrustedKey]:
    if "PRIVATE KEY-----" in text:
        raise ValueError("it holds a PRIVATE key, which belongs to the signer alone; use the .pub file")
    begin = 0
    for block in PUBLIC_BLOCK.finditer(text):
        yield _key(_fields(text[begin : block.start()]), parse_public_body(block["body"]), file)
        begin = block.end()
    if rest := _fields(text[begin:]):
        raise ValueError(f"no whole public key follows {min(rest)!r}")


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, colon, value = stripped.partition(":")
        if not colon or name not in _FIELDS:
            # a misspelt Not-After that counts for nothing would be worse than an error
            raise ValueError(f"{stripped[:40]!r} is no line of a key; known are {', '.join(sorted(_FIELDS))}")
        fields[name] = value.strip()
    return fields


def _key(fields: dict[str, str], raw: bytes, file: Path) -> TrustedKey:
    key_id = key_id_of(raw)
    if fields.get("Key-Id", key_id) != key_id:
        raise ValueError(f"the key with Key-Id {fields['Key-Id']} is {key_id}; one of the two was changed")
    return TrustedKey(
        key_id=key_id,
        raw=raw,
        name=fields.get("Name", ""),
        created=_moment(fields, "Created"),
        not_after=_moment(fields, "Not-After"),
        source=file,
    )


def _moment(fields: dict[str, str], name: str) -> datetime | None:
    if name not in fields:
        return None
    try:
        return parse_moment(fields[name])
    except ValueError as error:
        raise ValueError(f"{name} {fields[name]!r} is no time; write 2027-01-01T00:00:00+00:00") from error


def _twice(keys: list[TrustedKey]) -> Iterator[tuple[TrustedKey, TrustedKey]]:
    seen: dict[str, TrustedKey] = {}
    for key in keys:
        if key.key_id in seen:
            yield seen[key.key_id], key
        seen[key.key_id] = key
