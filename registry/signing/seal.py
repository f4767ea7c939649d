"""What a registry does about signatures: signs what it writes, and judges what decides something.

Looking at a document asks for no signature, so that `ferry list` and `ferry history` show an attack instead
of failing on it. What changes a channel, and what a consumer serves, does ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.errors import RefusedError
from ferryline.registry.signing.policy import GATE, SignaturePolicy

if TYPE_CHECKING:
    from ferryline.registry.signing.signer import Signer
    from ferryline.registry.signing.verifier import Verifier

SignedT = TypeVar("SignedT", Manifest, ChannelEntry)


@dataclass(frozen=True, slots=True)
class Seal:
    """Who signs here, whom to trust, and for how long an entry vouches for its channel; nothing by default.

    Attributes:
        signer: signs what is written; None leaves it unsigned.
        verifier: judges what is read; None trusts everything.
        fresh_for: after so long without a new entry, consumers of the channel warn; None for never.
    """

    signer: Signer | None = None
    verifier: Verifier | None = None
    fresh_for: timedelta | None = None

    def sign(self, document: SignedT) -> SignedT:
        """The document as it is to be written.

        Raises:
            RefusedError: whoever asks what this program asks would refuse it (gate `signature`), for lack of
                a key, or because the key is not trusted or has ended.
        """
        if self.signer is not None:
            document = self.signer.sign(document)
        elif self.verifier is not None and self.verifier.policy is SignaturePolicy.REQUIRED:
            raise RefusedError(
                GATE,
                f"{described(document)} would not be signed, and FERRY_SIGNATURES=required",
                "Set FERRY_SIGNING_KEY to your .key file (`ferry keygen` makes one); nothing was written",
            )
        self.require(document)
        return document

    def require(self, document: Manifest | ChannelEntry) -> None:
        """Return when `document` may be trusted.

        Raises:
            RefusedError: it may not (gate `signature`).
        """
        if self.verifier is not None:
            self.verifier.require(document, what=described(document))

    def admits(self, document: Manifest | ChannelEntry) -> bool:
        """Whether `document` may be trusted."""
        try:
            self.require(document)
        except RefusedError:
            return False
        return True

    def verdict(self, document: Manifest | ChannelEntry) -> str:
        """What is to be said of a document's signature, empty where there is none and nobody asks for one."""
        if document.signature is None and self.verifier is None:
            return ""
        by = f"by key {document.signature.key_id[:16]}" if document.signature else "no"
        if self.verifier is None:
            return f"{by}, not verified here"
        try:
            self.require(document)
        except RefusedError as error:
            return f"refused: {error.reason}"
        return f"{by}, trusted" if document.signature else by

    def expiry(self, now: datetime) -> datetime | None:
        """Until when an entry that is written now vouches for its channel, None for ever."""
        return None if self.fresh_for is None else now + self.fresh_for


UNSEALED = Seal()
"""Signs nothing and trusts everything."""


def described(document: Manifest | ChannelEntry) -> str:
    """The document as messages name it."""
    if isinstance(document, Manifest):
        return f"the manifest of {document.model}@{document.version}"
    return f"generation {document.generation} of {document.model}:{document.channel}"
