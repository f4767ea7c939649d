"""Ed25519 keys as PEM text (RFC 7468), in the forms of RFC 8410: SubjectPublicKeyInfo and PKCS #8.

Both forms are a fixed prefix and 32 bytes, so the everyday case needs none of `cryptography`'s parsers, which
take longer to import than a command may take to start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----(?P<body>[^-]*)-----END PUBLIC KEY-----")
_PRIVATE_BLOCK = re.compile(r"-----BEGIN PRIVATE KEY-----(?P<body>[^-]*)-----END PRIVATE KEY-----")
_ENCRYPTED = "-----BEGIN ENCRYPTED PRIVATE KEY-----"
_PUBLIC_PREFIX = bytes.fromhex("302a300506032b6570032100")
_PRIVATE_PREFIX = bytes.fromhex("302e020100300506032b657004220420")
_RAW_BYTES = 32
_KEY_ID_DIGITS = 16


def key_id_of(raw: bytes) -> str:
    """The id of a public key: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(raw).hexdigest()[:_KEY_ID_DIGITS]


def public_pem(raw: bytes) -> str:
    """The PEM block of a public key."""
    body = base64.b64encode(_PUBLIC_PREFIX + raw).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def parse_public_body(body: str) -> bytes:
    """The 32 bytes of the public key in the body of a PEM block.

    Raises:
        ValueError: it is no Ed25519 key.
    """
    return _unwrap(body, _PUBLIC_PREFIX)


def private_pem(key: Ed25519PrivateKey, passphrase: str | None) -> str:
    """The PEM block of a private key, encrypted where there is a passphrase."""
    if passphrase is None:
        body = base64.b64encode(_PRIVATE_PREFIX + key.private_bytes_raw()).decode()
        lines = "\n".join(textwrap.wrap(body, 64))
        return f"-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    ).decode()


def parse_private(text: str, passphrase: str | None) -> Ed25519PrivateKey:
    """The private key in a PEM file.

    Raises:
        ValueError: there is none, the passphrase is missing, wrong or superfluous, or it is no Ed25519 key;
            the text says which.
    """
    if _ENCRYPTED in text:
        return _decrypt(text, passphrase)
    if passphrase is not None:
        raise ValueError("it is not encrypted, and FERRY_SIGNING_PASSPHRASE is set; unset it")
    if (block := _PRIVATE_BLOCK.search(text)) is None:
        raise ValueError("it holds no PEM private key (PKCS #8)")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_unwrap(block["body"], _PRIVATE_PREFIX))


def _decrypt(text: str, passphrase: str | None) -> Ed25519PrivateKey:
    if passphrase is None:
        raise ValueError("it is encrypted; set FERRY_SIGNING_PASSPHRASE")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(text.encode(), passphrase.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("it cannot be decrypted; is FERRY_SIGNING_PASSPHRASE the right one?") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is no Ed25519 key; make one with `ferry keygen`")  # noqa: TRY004 - a file's fault
    return key


def _unwrap(body: str, prefix: bytes) -> bytes:
    try:
        data = base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is damaged ({error})") from error
    if not data.startswith(prefix) or len(data) != len(prefix) + _RAW_BYTES:
        raise ValueError("it is no Ed25519 key; make one with `ferry keygen`")
    return data.removeprefix(prefix)
