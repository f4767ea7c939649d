"""Who signs and whom to trust, from the settings: nothing where nothing is configured."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ferryline.registry.errors import UsageError
from ferryline.registry.settings import Settings
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.seal import Seal

if TYPE_CHECKING:
    from ferryline.registry.signing.signer import Signer
    from ferryline.registry.signing.verifier import Verifier


def policy_of(settings: Settings) -> SignaturePolicy:
    """The policy in force: the one that is named, else `optional` where keys are trusted, else `off`."""
    if settings.signatures is not None:
        return settings.signatures
    return SignaturePolicy.OPTIONAL if settings.trusted_keys else SignaturePolicy.OFF


def seal_of(settings: Settings) -> Seal:
    """Who signs here and whom to trust.

    Raises:
        UsageError: a key file cannot be used, or the policy asks for trusted keys and none are named.
    """
    fresh_for = None if settings.fresh_for is None else timedelta(seconds=settings.fresh_for)
    return Seal(_signer(settings), _verifier(settings), fresh_for)


def ratchet_folder(settings: Settings) -> Path | None:
    """Where a consumer remembers the highest generations, None where it is not to.

    It is as `FERRY_RATCHET` says, else where signatures are looked at.
    """
    wanted = settings.ratchet
    if wanted is None:
        wanted = policy_of(settings) is not SignaturePolicy.OFF
    return settings.state if wanted else None


def _signer(settings: Settings) -> Signer | None:
    if settings.signing_key is None:
        return None
    from ferryline.registry.signing.signer import Signer

    passphrase = settings.signing_passphrase
    return Signer.from_file(settings.signing_key, passphrase.get_secret_value() if passphrase else None)


def _verifier(settings: Settings) -> Verifier | None:
    policy = policy_of(settings)
    if policy is SignaturePolicy.OFF:
        return None
    if settings.trusted_keys is None:
        raise UsageError(
            f"FERRY_SIGNATURES={policy} needs FERRY_TRUSTED_KEYS: the folder or file of the public keys "
            "to trust"
        )
    from ferryline.registry.signing.trust import read_trusted_keys
    from ferryline.registry.signing.verifier import Keyring, Verifier

    return Verifier(Keyring(read_trusted_keys(settings.trusted_keys)), policy)
