"""Signs manifests and channel entries."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ferryline.registry.documents import ChannelEntry, Manifest, Signature
from ferryline.registry.signing.canonical import signed_bytes
from ferryline.registry.signing.keyfiles import read_private_key
from ferryline.registry.signing.pem import key_id_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SignedT = TypeVar("SignedT", Manifest, ChannelEntry)


class Signer:
    """Signs with one private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id_of(key.public_key().public_bytes_raw())

    @classmethod
    def from_file(cls, file: Path, passphrase: str | None = None) -> Signer:
        """A signer with the key in `file`.

        Raises:
            UsageError: the file cannot be used; see `read_private_key`.
        """
        return cls(read_private_key(file, passphrase))

    def sign(self, document: SignedT) -> SignedT:
        """A copy of `document` with this key's signature in place of any other.

        Raises:
            UsageError: the document cannot be encoded.
        """
        content = signed_bytes(document.kind, document.encode())
        if content is None:
            raise ValueError(f"the encoding of this {document.kind} is not canonical")
        value = base64.b64encode(self._key.sign(content)).decode()
        # a default is left out of what counts as written, and a signature without its algorithm is refused
        signature = Signature(key_id=self.key_id, algorithm="ed25519", value=value)
        return document.model_copy(update={"signature": signature})
