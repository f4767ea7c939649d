"""What can go wrong with a request, as one tree; no error here knows a status code of any transport.

FerryError
└── RequestError            a request that gets no answer; its text goes to the caller
    ├── InvalidRequestError     it does not fit the protocol or the model's contract
    ├── NotServedError          no such model here, or no such version warm
    ├── NotReadyError           the model is followed and has no warm version yet
    ├── OverloadedError         too many requests wait for the model
    ├── TooLargeError           its message is larger than the server takes
    ├── DeadlineExceededError   its caller waits no more; the model was not run
    ├── UnsupportedError        the protocol has it and this server does not
    ├── ControlRefusedError     models are not loaded and unloaded by callers here
    ├── UnauthenticatedError    it does not say who asks, or nobody who is known here
    ├── ForbiddenError          whoever asks may not ask for that
    └── InternalFaultError      our fault: the caller gets an id, the log has the rest
"""

from __future__ import annotations

from ferryline.registry.errors import FerryError

__all__ = [
    "ControlRefusedError",
    "DeadlineExceededError",
    "ForbiddenError",
    "InternalFaultError",
    "InvalidRequestError",
    "NotReadyError",
    "NotServedError",
    "OverloadedError",
    "RequestError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnsupportedError",
    "shortened",
]

# gRPC carries the text in a header and percent-encodes it; clients refuse headers beyond 8 KiB
LONGEST_TEXT = 1000
LONGEST_NAME = 80


def shortened(name: str) -> str:
    """A caller's own word, quoted, and cut where it is too long to repeat."""
    return repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")


class RequestError(FerryError):
    """A request that gets no answer; the text is fit for the caller."""

    def __init__(self, text: str) -> None:
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…")


class InvalidRequestError(RequestError):
    """The request does not fit the protocol or the model's contract; sending it again will not help."""


class NotServedError(RequestError):
    """This server does not serve the model, or keeps no such version of it warm."""


class NotReadyError(RequestError):
    """The model is followed and nothing of it serves yet; a later try may succeed."""


class UnsupportedError(RequestError):
    """The protocol, or Triton's extension of it, has what was asked for, and this server does not."""


class ControlRefusedError(RequestError):
    """Models come and go by the server's settings, not by its callers' requests."""


class UnauthenticatedError(RequestError):
    """The request does not say who asks, or names nobody who is known here."""


class ForbiddenError(RequestError):
    """Whoever asks is known and may not ask for that."""


class OverloadedError(RequestError):
    """Too many requests wait; `retry_after` says in how many seconds a later try may succeed."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class TooLargeError(RequestError):
    """The message is larger than the server takes."""


class DeadlineExceededError(RequestError):
    """The deadline passed before the model was run, so it was not run."""


class InternalFaultError(RequestError):
    """A fault of this server's; `fault_id` is in its log, beside the stack trace."""

    def __init__(self, fault_id: str) -> None:
        super().__init__(f"the server failed to answer; its log has more under id {fault_id}")
        self.fault_id = fault_id
