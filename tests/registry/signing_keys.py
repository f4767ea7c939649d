"""Keys, signers and verifiers for tests."""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ferryline.registry.signing.pem import key_id_of
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.seal import Seal
from ferryline.registry.signing.signer import Signer
from ferryline.registry.signing.trust import TrustedKey
from ferryline.registry.signing.verifier import Keyring, Verifier


class Keys:
    """A key pair and what a truster says of it."""

    def __init__(self, name: str = "trainer", *, not_after: datetime | None = None) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.signer = Signer(self.private)
        raw = self.private.public_key().public_bytes_raw()
        self.trusted = TrustedKey(key_id_of(raw), raw, name, not_after=not_after)


def verifier(*keys: Keys, policy: SignaturePolicy = SignaturePolicy.REQUIRED) -> Verifier:
    return Verifier(Keyring(key.trusted for key in keys), policy)


def seal(signer: Keys | None, *trusted: Keys, policy: SignaturePolicy = SignaturePolicy.REQUIRED) -> Seal:
    """Signs with `signer` and trusts `trusted`, or the signer alone where none are named."""
    keys = trusted or ((signer,) if signer else ())
    return Seal(signer.signer if signer else None, verifier(*keys, policy=policy))
