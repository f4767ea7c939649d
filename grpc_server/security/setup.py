"""Security as the settings have it; reads every file it names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ferryline.grpc_server.reloading import Reloaded
from ferryline.grpc_server.security.certificates import CertificateFiles, Certificates
from ferryline.grpc_server.security.guard import Guard
from ferryline.grpc_server.security.tokens import Tokens, parse_tokens
from ferryline.grpc_server.settings import ServerSettings
from ferryline.registry.errors import UsageError


@dataclass(frozen=True, slots=True)
class Security:
    """What protects a server.

    Args:
        certificates: what it shows to callers, and asks of them; None for connections that nothing protects.
        tokens: the tokens it knows; None where it asks for none.
        guard: asks for them.
        reflection: whether it describes its RPCs to those who ask.
    """

    certificates: Reloaded[Certificates] | None = None
    tokens: Reloaded[Tokens] | None = None
    guard: Guard | None = None
    reflection: bool = True

    @property
    def tls(self) -> str:
        """Whether connections are encrypted, in a word."""
        if self.certificates is None:
            return "off"
        return "on" if self.certificates.value.client_ca is None else "mutual"

    @property
    def reloaded(self) -> list[Reloaded[Any]]:
        """All that is read again when its files change."""
        return [each for each in (self.certificates, self.tokens) if each is not None]


NO_SECURITY = Security()


def security_of(settings: ServerSettings) -> Security:
    """Everything read and proved.

    Raises:
        UsageError: a file cannot be read or is not in order, or one is missing beside another.
    """
    files = _certificate_files(settings)
    certificates = Reloaded("certificates", files.all, files.parse) if files else None
    file = settings.server_tokens
    if file is None:
        return Security(certificates, reflection=settings.server_reflection)
    tokens = Reloaded("tokens", [file], lambda contents: parse_tokens(file, contents[0]))
    guard = Guard(partial(getattr, tokens, "value"), open_health=settings.server_open_health)
    return Security(certificates, tokens, guard, settings.server_reflection)


def _certificate_files(settings: ServerSettings) -> CertificateFiles | None:
    certificate, key = settings.server_tls_certificate, settings.server_tls_key
    client_ca = settings.server_tls_client_ca
    if certificate is not None and key is not None:
        return CertificateFiles(certificate, key, client_ca)
    if certificate is None and key is None and client_ca is None:
        return None
    missing = "--tls-certificate" if certificate is None else "--tls-key"
    raise UsageError(f"TLS needs {missing} as well: the certificate and its key, each in PEM")
