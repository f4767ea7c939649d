"""What can go wrong for a caller, as one tree.

FerryError
└── ClientError             no answer; its text is fit for a user
    ├── InputError              the arrays do not fit the model; nothing was sent
    ├── UnreadableAnswerError   the server's answer breaks the protocol
    └── InferenceError          the server said no, or did not say anything; `code` is gRPC's name of why
        ├── RequestRefusedError     INVALID_ARGUMENT: the request is wrong, and stays wrong
        ├── ModelNotFoundError      NOT_FOUND: no such model, channel or warm version there
        ├── AccessError             UNAUTHENTICATED, PERMISSION_DENIED: the token or certificate will not do
        ├── OverloadedError         RESOURCE_EXHAUSTED: too much at once, or too large
        ├── UnavailableError        UNAVAILABLE: no server there, or no model in it yet
        └── TimedOutError           DEADLINE_EXCEEDED: no answer within the timeout
"""

from __future__ import annotations

from typing import Any

from ferryline.grpc_server.client.retry_info import KEY, retry_seconds
from ferryline.registry.errors import FerryError

__all__ = [
    "AccessError",
    "ClientError",
    "InferenceError",
    "InputError",
    "ModelNotFoundError",
    "OverloadedError",
    "RequestRefusedError",
    "TimedOutError",
    "UnavailableError",
    "UnreadableAnswerError",
    "of_rpc",
    "of_status",
]


class ClientError(FerryError):
    """There is no answer."""


class InputError(ClientError):
    """The arrays do not fit what the model takes, so nothing was sent."""


class UnreadableAnswerError(ClientError):
    """The server answered with something that the protocol does not know."""


class InferenceError(ClientError):
    """The server gave no answer.

    Args:
        code: gRPC's name of the status, such as `NOT_FOUND`.
        text: what the server said.
        retry_after: seconds to wait before another try, where the server said that one is worth it.
    """

    def __init__(self, code: str, text: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.retry_after = retry_after


class RequestRefusedError(InferenceError):
    """The request does not fit the protocol or the model; sending it again will not help."""


class ModelNotFoundError(InferenceError):
    """The server serves no such model or channel, or keeps no such version warm."""


class AccessError(InferenceError):
    """The server does not know the caller, or the caller may not do this."""


class OverloadedError(InferenceError):
    """Too many requests wait there, and `retry_after` says when to come back; or a message is too large."""


class UnavailableError(InferenceError):
    """No server answers at the address, or it serves nothing of this model yet."""


class TimedOutError(InferenceError):
    """There was no answer within the timeout."""


_KINDS: dict[str, type[InferenceError]] = {
    "INVALID_ARGUMENT": RequestRefusedError,
    "NOT_FOUND": ModelNotFoundError,
    "UNAUTHENTICATED": AccessError,
    "PERMISSION_DENIED": AccessError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": TimedOutError,
}


def of_status(code: str, text: str, retry_after: float | None = None) -> InferenceError:
    """The error for a status that is not OK."""
    return _KINDS.get(code, InferenceError)(code, text, retry_after)


def of_rpc(error: Any) -> InferenceError:
    """The error for what grpc or grpc.aio raised (their errors share methods, and no class that says so)."""
    trailers = dict(error.trailing_metadata() or ())
    return of_status(error.code().name, error.details() or "", retry_seconds(trailers.get(KEY, b"")))
