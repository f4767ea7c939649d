"""TLS for gRPC and for HTTP, whose certificates can be exchanged while they listen.

Connections that are open stay as they are; every new one is met with what is in force then.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from ferryline.grpc_server.security.certificates import Certificates

Current = Callable[[], Certificates]
"""Gives what is in force."""


def ssl_context(current: Current, protocol: str) -> ssl.SSLContext:
    """A context for a listener. It meets each connection with a context made of what is in force.

    Args:
        current: gives that.
        protocol: what is spoken, by its name in ALPN.
    """
    contexts = _Contexts(current, protocol)
    listening = contexts.now()

    def exchange(connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> None:
        connection.context = contexts.now()

    # called for callers that name no server too
    listening.sni_callback = exchange
    return listening


class _Contexts:
    """One context for as long as the same certificates are in force."""

    def __init__(self, current: Current, protocol: str) -> None:
        self._current = current
        self._protocol = protocol
        self._made_of: Certificates | None = None
        self._context: ssl.SSLContext | None = None

    def now(self) -> ssl.SSLContext:
        certificates = self._current()
        if self._context is None or certificates is not self._made_of:
            self._made_of, self._context = certificates, _context(certificates, self._protocol)
        return self._context


def _context(certificates: Certificates, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # a session that is taken up again would be met with the authorities of the day it began
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([protocol])
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
