"""Private keys on disk: made once, never overwritten, and read by their owner alone."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ferryline.registry.errors import ConflictError, UsageError
from ferryline.registry.names import require_name
from ferryline.registry.signing.pem import key_id_of, parse_private, private_pem
from ferryline.registry.signing.trust import LARGEST_FILE, PUBLIC_SUFFIX, TrustedKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE_SUFFIX = ".key"

_OWNER_ONLY = 0o600
_FOLDER_OWNER_ONLY = 0o700
_READABLE = 0o644


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a new pair lies: `private` for the signer alone, `public` for everyone who is to trust it."""

    key: TrustedKey
    private: Path
    public: Path


def make_key_pair(
    folder: Path,
    name: str,
    *,
    created: datetime,
    not_after: datetime | None = None,
    passphrase: str | None = None,
) -> KeyPair:
    """Make `<name>.key` and `<name>.pub` in `folder`, which is made private where it is new.

    Raises:
        ConflictError: one of them exists; a key is never overwritten.
        UsageError: the name cannot be one, or the folder cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder = folder.expanduser().absolute()
    private = folder / (require_name(name, what="key") + PRIVATE_SUFFIX)
    public = private.with_name(name + PUBLIC_SUFFIX)
    secret = Ed25519PrivateKey.generate()
    raw = secret.public_key().public_bytes_raw()
    key = TrustedKey(key_id_of(raw), raw, name, created.replace(microsecond=0), not_after, public)
    try:
        _make_folder(folder)
        _write_new(private, private_pem(secret, passphrase), _OWNER_ONLY)
        _write_public(public, key.text(), private)
    except FileExistsError as error:
        raise ConflictError(
            f"{error.filename} exists, and a key is never overwritten; take another name"
        ) from error
    except OSError as error:
        raise UsageError(
            f"no key can be written to {folder}: {error.strerror}; name another with --out"
        ) from error
    return KeyPair(key, private, public)


def read_private_key(file: Path, passphrase: str | None) -> Ed25519PrivateKey:
    """The private key in `file`.

    Raises:
        UsageError: others may read it, it cannot be read, or it holds no key that this passphrase opens.
    """
    try:
        with file.expanduser().open("rb") as opened:
            _require_private(file, os.fstat(opened.fileno()))
            data = opened.read(LARGEST_FILE)
    except OSError as error:
        raise UsageError(
            f"the signing key {file} cannot be read: {error.strerror}; FERRY_SIGNING_KEY names the .key file "
            "of `ferry keygen`"
        ) from error
    try:
        return parse_private(data.decode(), passphrase)
    except ValueError as error:
        raise UsageError(f"the signing key {file} is of no use: {error}") from error


def _require_private(file: Path, found: os.stat_result) -> None:
    if not hasattr(os, "geteuid"):  # Windows keeps who may read a file elsewhere
        return
    # a key that root owns may be read by our group: so secrets are mounted for programs that are not root
    allowed = _OWNER_ONLY | (stat.S_IRGRP if found.st_uid == 0 and os.geteuid() != 0 else 0)
    if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077 & ~allowed:
        raise UsageError(
            f"others may read the signing key {file} (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run: chmod 600 {file}. If anyone else has had access, make a new one with `ferry keygen`"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=_FOLDER_OWNER_ONLY, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(error.errno, "it is a file", str(folder)) from error


def _write_public(public: Path, text: str, private: Path) -> None:
    try:
        _write_new(public, text, _READABLE)
    except OSError:
        private.unlink()  # ours, from a moment ago: half a pair helps nobody
        raise


def _write_new(file: Path, text: str, mode: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError:
        file.unlink()  # a full disk leaves no half key that the next try would find there
        raise
