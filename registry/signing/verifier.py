"""Refuses documents that nobody trusted vouches for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NoReturn

from ferryline.registry.documents import ChannelEntry, Manifest, Signature
from ferryline.registry.errors import RefusedError
from ferryline.registry.signing.canonical import signed_bytes
from ferryline.registry.signing.policy import GATE, SignaturePolicy
from ferryline.registry.signing.trust import TrustedKey


class Keyring:
    """The keys that are trusted, by id; several at once let one take over from another."""

    def __init__(self, keys: Iterable[TrustedKey]) -> None:
        self._keys = {key.key_id: key for key in keys}

    def __iter__(self) -> Iterator[TrustedKey]:
        return iter(self._keys.values())

    def get(self, key_id: str) -> TrustedKey | None:
        """The key with this id, None where it is not trusted."""
        return self._keys.get(key_id)


class Verifier:
    """Judges signatures by a keyring and a policy.

    - `required`: every document must be signed by a trusted key.
    - `optional`: one without a signature passes; a wrong one, or one of an unknown key, never does.
    - `off`: nothing is looked at.
    """

    def __init__(self, keyring: Keyring, policy: SignaturePolicy) -> None:
        self.keyring = keyring
        self.policy = policy

    def require(self, document: Manifest | ChannelEntry, *, what: str) -> None:
        """Return when `document` may be trusted.

        Args:
            document: as it was read from the store, or as it is to be written.
            what: names it in messages.

        Raises:
            RefusedError: it may not (gate `signature`).
        """
        if self.policy is SignaturePolicy.OFF:
            return
        signature = document.signature
        if signature is None:
            if self.policy is SignaturePolicy.REQUIRED:
                _refuse_unsigned(what)
            return
        key = self._require_key(signature, what)
        _require_match(key, signature, signed_bytes(document.kind, document.stored_bytes), what)
        _require_in_time(key, _dated(document), what)

    def _require_key(self, signature: Signature, what: str) -> TrustedKey:
        if (key := self.keyring.get(signature.key_id)) is None:
            raise RefusedError(
                GATE,
                f"{what} is signed by key {signature.key_id[:16]}, which is not trusted here",
                "If you know that key, add its .pub file to FERRY_TRUSTED_KEYS; "
                "`ferry keys` shows which are trusted",
            )
        return key


def _refuse_unsigned(what: str) -> NoReturn:
    raise RefusedError(
        GATE,
        f"{what} is not signed, and FERRY_SIGNATURES=required",
        "Give its writer a key (FERRY_SIGNING_KEY) and write it again; "
        "if nobody you know wrote it, someone else can write to the store",
    )


def _require_match(key: TrustedKey, signature: Signature, content: bytes | None, what: str) -> None:
    if content is None or not _matches(key, signature, content):
        raise RefusedError(
            GATE,
            f"the signature of {what} by key {key} does not match its content",
            "Someone altered the store; find out who, then publish and promote again",
        )


def _matches(key: TrustedKey, signature: Signature, content: bytes) -> bool:
    # these imports take longer than the check; a program without keys never comes here
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        value = base64.b64decode(signature.value, validate=True)
    except (binascii.Error, ValueError):
        return False
    # the signature does not cover itself: one form of it only, nothing left out and nothing beside it
    is_whole = signature.model_fields_set == {"key_id", "algorithm", "value"}
    if base64.b64encode(value).decode() != signature.value or not is_whole:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(value, content)
    except InvalidSignature:
        return False
    return True


def _require_in_time(key: TrustedKey, dated: datetime, what: str) -> None:
    if key.not_after is not None and dated > key.not_after:
        raise RefusedError(
            GATE,
            f"{what} is dated {dated:%Y-%m-%d %H:%M:%S %Z}, after key {key} ended on "
            f"{key.not_after:%Y-%m-%d %H:%M:%S %Z}",
            "Sign with a newer key; `ferry keygen` makes one",
        )


def _dated(document: Manifest | ChannelEntry) -> datetime:
    return document.created_at if isinstance(document, Manifest) else document.at
