"""A server's certificate with its key, read from files and proved to belong together.

`cryptography` is imported where a file is read, so that a server without TLS does not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ferryline.registry.documents import utc_now
from ferryline.registry.errors import UsageError

if TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where they lie.

    Args:
        certificate: the certificate, then those that lead to the authority's; PEM.
        key: its private key, PEM without a passphrase.
        client_ca: the authorities whose certificates callers must have; None for callers without.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def all(self) -> list[Path]:
        """Every file, in the order that `parse` takes their bytes."""
        return [self.certificate, self.key, *([self.client_ca] if self.client_ca else [])]

    def parse(self, contents: Sequence[bytes]) -> Certificates:
        """The certificates in the bytes of the files.

        Raises:
            UsageError: they are not in order.
        """
        chain = _certificates(self.certificate, contents[0])
        _require_key_of(chain[0], self.key, contents[1], self.certificate)
        _require_in_time(chain[0], self.certificate)
        if self.client_ca is not None:
            _certificates(self.client_ca, contents[2])
        return Certificates(
            chain=contents[0],
            key=contents[1],
            client_ca=contents[2] if self.client_ca is not None else None,
            subject=chain[0].subject.rfc4514_string(),
            not_after=chain[0].not_valid_after_utc,
        )


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a listener needs, in order and of one moment; PEM."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    subject: str
    not_after: datetime


def _certificates(file: Path, data: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise UsageError(f"{file} holds no certificates in PEM, or only part of one") from error


def _require_key_of(certificate: x509.Certificate, file: Path, data: bytes, of: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise UsageError(f"{file} is encrypted; the server needs the key without a passphrase") from error
    except Exception as error:  # cryptography has more than one for what it cannot read
        raise UsageError(f"{file} holds no private key in PEM, or only part of one") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise UsageError(f"{file} is not the key of the certificate in {of}")


def _require_in_time(certificate: x509.Certificate, file: Path) -> None:
    end = certificate.not_valid_after_utc
    if end <= utc_now():
        raise UsageError(f"the certificate in {file} ended on {end:%Y-%m-%d %H:%M:%S} UTC; renew it")
