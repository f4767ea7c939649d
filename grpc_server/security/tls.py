"""TLS for gRPC and for HTTP, whose certificates can be exchanged while they listen.

Connections that are open stay as they are; every new one is met with what is in force then.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any

import grpc

from grpc_server.security.certificates import Certificates

Current = Callable[[], Certificates]
"""Gives what is in force."""


def grpc_credentials(current: Current) -> grpc.ServerCredentials:
    """Credentials for a gRPC port."""
    first = current()
    mutual = first.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(_configuration(first), _Newer(current, first), mutual)


class _Newer:
    """Asked by gRPC, on its threads, before each handshake."""

    def __init__(self, current: Current, first: Certificates) -> None:
        self._current = current
        self._given = first

    def __call__(self) -> Any:
        """What is in force, or None if gRPC has it already."""
        certificates = self._current()
        if certificates is self._given:
            return None
        self._given = certificates
        return _configuration(certificates)


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], certificates.client_ca
    )


def ssl_context(current: Current) -> ssl.SSLContext:
    """A context for a listener. It meets each connection with a context made of what is in force."""
    contexts = _Contexts(current)
    listening = contexts.now()

    def exchange(connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> None:
        connection.context = contexts.now()

    # called for callers that name no server too
    listening.sni_callback = exchange
    return listening


class _Contexts:
    """One context for as long as the same certificates are in force."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._made_of: Certificates | None = None
        self._context: ssl.SSLContext | None = None

    def now(self) -> ssl.SSLContext:
        certificates = self._current()
        if self._context is None or certificates is not self._made_of:
            self._made_of, self._context = certificates, _context(certificates)
        return self._context


def _context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # a session that is taken up again would be met with the authorities of the day it began
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, certificates)
    if certificates.client_ca is not None:
        # likewise, and older versions have other ways to take a session up
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=certificates.client_ca.decode())
    return context


def _load_pair(context: ssl.SSLContext, certificates: Certificates) -> None:
    # OpenSSL reads this from a file only, and the files on disk may be newer than what was proved
    number = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(number, certificates.key + b"\n" + certificates.chain)
        context.load_cert_chain(f"/proc/self/fd/{number}")
    finally:
        os.close(number)
