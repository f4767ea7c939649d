"""How a client reaches its server: TLS, the token, retries. No I/O but reading the files of certificates."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from ferryline.grpc_server.client.errors import InferenceError
from ferryline.registry.errors import UsageError

LARGEST_MESSAGE = 2**31 - 1

Token = str | Callable[[], str]
"""A bearer token, or what gives the one of the moment, such as the contents of a file that is renewed."""

_ON_THIS_MACHINE = ("127.", "localhost", "[::1]", "unix:", "ipv4:127.", "ipv6:[::1]")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the server, and mutual TLS where there is a certificate.

    Args:
        roots: the file of the authorities to trust (PEM); the ones gRPC brings where None.
        certificate: the file of the caller's certificate chain (PEM).
        key: the file of its private key (PEM).
        server_name: the name to expect in the server's certificate, where it is not the address's.
    """

    roots: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """What a channel takes.

        Raises:
            UsageError: a file cannot be read, or there is a certificate without its key.
        """
        if (self.certificate is None) != (self.key is None):
            raise UsageError("Tls takes a certificate and its key, or neither")
        roots, key, certificate = map(_contents, (self.roots, self.key, self.certificate))
        return grpc.ssl_channel_credentials(roots, key, certificate)


@dataclass(frozen=True, slots=True)
class Retry:
    """When a question is asked again: the waits double from `first` to `longest` seconds, with jitter.

    Only what cannot do harm: an inference changes nothing, so it may run twice. Asked again is where nobody
    answered (UNAVAILABLE), and where the server itself says when (RESOURCE_EXHAUSTED with retry information).
    The timeout of a call holds for all its tries together.

    Args:
        attempts: how often to ask at most; 1 for no retries.
        first: seconds before the second try.
        longest: seconds that a wait has at most, unless the server asks for more.
    """

    attempts: int = 4
    first: float = 0.1
    longest: float = 2.0

    def wait_after(
        self, attempt: int, error: InferenceError, draw: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait after `attempt` (the first is 1) failed with `error`; None to give up.

        Args:
            attempt: which it was.
            error: what came of it.
            draw: gives the jitter, from 0 to 1, so that callers who failed together do not return together.
        """
        if attempt >= self.attempts or not _may_pass(error):
            return None
        backoff = min(self.longest, self.first * 2.0 ** (attempt - 1)) * (0.5 + draw() / 2)
        return backoff if error.retry_after is None else error.retry_after + backoff


NO_RETRY = Retry(attempts=1)


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything about the way to a server.

    Args:
        address: `host:port`, or anything gRPC can resolve, such as `dns:///host:port`.
        tls: None for plaintext.
        token: sent as `authorization: Bearer …`.
        metadata: sent with every call.
        plaintext_token: whether a token may leave this machine without TLS, as inside of a service mesh.
        options: of the channel, before ours.
    """

    address: str
    tls: Tls | None = None
    token: Token | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    plaintext_token: bool = False
    options: Sequence[tuple[str, Any]] = ()

    def __post_init__(self) -> None:
        if self.token is None or self.tls is not None or self.plaintext_token:
            return
        if not self.address.startswith(_ON_THIS_MACHINE):
            raise UsageError(
                f"a token for {self.address} would travel unencrypted: give tls=Tls(), or "
                "plaintext_token=True where something else encrypts the way"
            )

    def channel_options(self) -> list[tuple[str, Any]]:
        """No limit of size but the server's, and soon back after a restart of the server."""
        chosen: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5000),
        ]
        if self.tls is not None and self.tls.server_name is not None:
            chosen.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return [*self.options, *chosen]

    def call_metadata(self, more: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
        """What goes with a call beside its message."""
        pairs = [*self.metadata.items(), *(more or {}).items()]
        if self.token is not None:
            token = self.token if isinstance(self.token, str) else self.token()
            pairs.append(("authorization", f"Bearer {token.strip()}"))
        return tuple((key.lower(), value) for key, value in pairs)


def _may_pass(error: InferenceError) -> bool:
    return error.code == "UNAVAILABLE" or (
        error.code == "RESOURCE_EXHAUSTED" and error.retry_after is not None
    )


def _contents(file: Path | str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
