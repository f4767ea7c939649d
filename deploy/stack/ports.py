"""Which port each listener gets: the one asked for, the one it had, its usual one, or any free one."""

import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ferryline.deploy.stack.errors import PortTakenError, StackUsageError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Listener:
    """A port the stack listens on.

    Attributes:
        name: its key in state.json.
        title: what people call it.
        default: the port it is usually found on; None takes any free one.
        flag: the command-line option that sets it.
        variable: the variable that names such a server running elsewhere.
    """

    name: str
    title: str
    default: int | None = None
    flag: str = ""
    variable: str | None = None


@dataclass(frozen=True)
class PortChoice:
    """The port a listener gets, and the usual one it could not have."""

    listener: Listener
    port: int
    instead_of: int | None = None


def is_free(port: int) -> bool:
    """Whether a server can listen on a port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # servers set this too: a connection still in TIME_WAIT does not keep them off the port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
        return True


def any_free() -> int:
    """A free port of the operating system's choice."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def choose_port(
    listener: Listener,
    *,
    wanted: int | None,
    last: int | None,
    taken: AbstractSet[int],
    free: Callable[[int], bool] = is_free,
    pick: Callable[[], int] = any_free,
) -> PortChoice:
    """Choose the port of one listener.

    Args:
        listener: who listens.
        wanted: the port asked for, if one was.
        last: the port it had when it ran last, if it ever did.
        taken: ports given to other listeners of this run.
        free: whether a port can be listened on.
        pick: a free port of the operating system's choice.

    Raises:
        PortTakenError: the port asked for is in use.
    """
    if wanted is not None:
        if wanted in taken or not free(wanted):
            raise PortTakenError(listener.title, wanted, flag=listener.flag, variable=listener.variable)
        return PortChoice(listener, wanted)
    for port in (last, listener.default):
        if port is not None and port not in taken and free(port):
            return PortChoice(listener, port)
    port = pick()
    while port in taken:
        port = pick()
    return PortChoice(listener, port, instead_of=listener.default)


def check_wanted(wanted: Mapping[str, int], running: Mapping[str, int]) -> None:
    """Refuse a port asked for while its server already listens on another.

    Raises:
        StackUsageError: naming the server and its port.
    """
    for name, port in wanted.items():
        current = running.get(name)
        if current is not None and current != port:
            raise StackUsageError(
                f"{name} already runs on port {current}: run `ferry-stack down` before moving it to {port}"
            )


def choose_ports(
    listeners: Sequence[Listener],
    *,
    wanted: Mapping[str, int],
    last: Mapping[str, int],
    running: Mapping[str, int],
    free: Callable[[int], bool] = is_free,
    pick: Callable[[], int] = any_free,
) -> list[PortChoice]:
    """Choose the ports of all listeners that are to start.

    Args:
        listeners: those that start now.
        wanted: ports asked for, by listener.
        last: ports of the last run, by listener.
        running: ports of this stack's servers that run already, by listener.
        free: whether a port can be listened on.
        pick: a free port of the operating system's choice.

    Raises:
        PortTakenError: a port asked for is in use.
        StackUsageError: a port was asked for whose server already runs on another.
    """
    check_wanted(wanted, running)
    taken = set(running.values())
    choices = []
    for listener in listeners:
        name = listener.name
        choice = choose_port(
            listener, wanted=wanted.get(name), last=last.get(name), taken=taken, free=free, pick=pick
        )
        taken.add(choice.port)
        choices.append(choice)
    return choices
