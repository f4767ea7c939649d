"""Ports that several processes will listen on, held by the process that starts them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ferryline.registry.errors import UsageError


@contextlib.contextmanager
def reserved(host: str, port: int, flags: str) -> Iterator[int]:
    """Hold a port of `host`, and give its number; 0 takes a free one.

    It is bound and not listened on, so no connection comes here. It lets others of this user share the port,
    which nobody must who is not asked: so it is first bound without.

    Args:
        host: the address.
        port: the port.
        flags: the options that choose another, for whoever reads the error.

    Raises:
        UsageError: the address is not this machine's, or the port is in use.
    """
    with contextlib.ExitStack() as held:
        try:
            for family, address in _addresses(host, port):
                if port:
                    _require_unused(family, address, port)
                port = _bound(family, address, port, held)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with {flags}"
            ) from error
        yield port


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _require_unused(family: socket.AddressFamily, address: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # what is left of closed connections does not count, as for every other server
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(probe, family, address, port)


def _bound(family: socket.AddressFamily, address: str, port: int, held: contextlib.ExitStack) -> int:
    holder = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(holder, family, address, port)
    return int(holder.getsockname()[1])


def _bind(each: socket.socket, family: socket.AddressFamily, address: str, port: int) -> None:
    if family is socket.AddressFamily.AF_INET6:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    each.bind((address, port))
