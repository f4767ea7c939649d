"""What Triton's clients may ask for and this server does not have: refused, with what there is instead."""

from __future__ import annotations

from typing import NoReturn

from google.protobuf.message import Message

from ferryline.grpc_server.errors import UnsupportedError

SHARED_MEMORY = tuple(
    f"{kind}SharedMemory{action}"
    for kind in ("System", "Cuda")
    for action in ("Status", "Register", "Unregister")
)
"""The names of Triton's RPCs for tensors that do not travel in the request."""


def trace_setting(_request: Message) -> NoReturn:
    """Refuse: traces are the operator's to set, not the callers'."""
    raise UnsupportedError(
        "trace settings cannot be read or changed by request: how this server traces is set when it is "
        "started (see `ferry-server --help`)"
    )


def log_settings(_request: Message) -> NoReturn:
    """Refuse: the log is the operator's to set, not the callers'."""
    raise UnsupportedError(
        "log settings cannot be read or changed by request: start the server with --log-format; it logs to "
        "standard error"
    )


def shared_memory(_request: Message) -> NoReturn:
    """Refuse: tensors travel in the messages."""
    raise UnsupportedError("shared memory is not supported: send tensors in the request, raw")
